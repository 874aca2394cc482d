package testkit

import (
	"net"
	"testing"

	"github.com/stretchr/testify/require"
)

// PeerServer listens at a TCP address for the test to accept connections by hand.
type PeerServer struct {
	Listener net.Listener
}

// NewPeerServer listens at address until the test ends.
func NewPeerServer(t testing.TB, address string) PeerServer {
	t.Helper()
	ln, err := net.Listen("tcp", address)
	require.NoError(t, err)
	t.Cleanup(func() { _ = ln.Close() })
	return PeerServer{ln}
}

// Address is what to dial.
func (p PeerServer) Address() string { return p.Listener.Addr().String() }

// Accept returns the next connection, which is closed when the test ends. It blocks until there is one.
func (p PeerServer) Accept(t testing.TB) net.Conn {
	t.Helper()
	conn, err := p.Listener.Accept()
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}
