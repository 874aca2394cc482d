package nettest

import (
	"net"
	"testing"

	"github.com/stretchr/testify/require"
)

// PeerServer hands out connections; it does not read them by itself.
type PeerServer struct {
	Listener net.Listener
}

func NewPeerServer(t testing.TB, address string) PeerServer {
	t.Helper()
	ln, err := net.Listen("tcp", address)
	require.NoError(t, err)
	t.Cleanup(func() { _ = ln.Close() })
	return PeerServer{ln}
}

func (p PeerServer) Address() string { return p.Listener.Addr().String() }

func (p PeerServer) Accept(t testing.TB) net.Conn {
	t.Helper()
	conn, err := p.Listener.Accept()
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}
