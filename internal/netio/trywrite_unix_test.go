//go:build unix

package netio

import (
	"net"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// A TryWriter takes what the socket takes, of which less than all is no error, and says why it can take nothing any more.
func TestTryWriter_SaysWhyNothingIsTaken(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { require.NoError(t, ln.Close()) }()
	conn, err := net.Dial("tcp", ln.Addr().String())
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close()) }()
	w, chunk := NewTryWriter(conn), make([]byte, 1<<20)
	for n := len(chunk); n > 0; { // until the socket is full
		n, err = w.Write(chunk)
		require.NoError(t, err)
	}
	require.Nil(t, w.buf, "it keeps hold of nothing")
	require.NoError(t, conn.(*net.TCPConn).CloseWrite())
	n, err := w.Write(chunk)
	require.ErrorIs(t, err, syscall.EPIPE)
	require.Zero(t, n)
	require.Nil(t, NewTryWriter(&patientConn{}), "not a bare socket")
}
