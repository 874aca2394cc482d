package testkit

import (
	"bytes"
	"net"
	"sync"
	"testing"
	"time"
)

// ScriptedConn is a connection whose peer has sent everything in advance and then closed. It keeps what is written to
// it.
type ScriptedConn struct {
	in     *bytes.Reader
	mu     sync.Mutex // guards out
	out    bytes.Buffer
	closed chan struct{}
	once   sync.Once
}

// NewScriptedConn returns a connection that reads in, then io.EOF.
func NewScriptedConn(in []byte) *ScriptedConn {
	return &ScriptedConn{in: bytes.NewReader(in), closed: make(chan struct{})}
}

// Read implements net.Conn.
func (c *ScriptedConn) Read(p []byte) (int, error) {
	select {
	case <-c.closed:
		return 0, net.ErrClosed
	default:
		return c.in.Read(p)
	}
}

// Write implements net.Conn.
func (c *ScriptedConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.out.Write(p)
}

// Written returns a copy of what was written so far.
func (c *ScriptedConn) Written() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return bytes.Clone(c.out.Bytes())
}

// Close implements net.Conn.
func (c *ScriptedConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return nil
}

// LocalAddr implements net.Conn.
func (*ScriptedConn) LocalAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }

// RemoteAddr implements net.Conn.
func (*ScriptedConn) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2), Port: 2} }

// SetDeadline does nothing: reads and writes do not wait.
func (*ScriptedConn) SetDeadline(time.Time) error { return nil }

// SetReadDeadline does nothing.
func (*ScriptedConn) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline does nothing.
func (*ScriptedConn) SetWriteDeadline(time.Time) error { return nil }

// AwaitClose fails the test if the connection is not closed within a minute. It waits in short steps, so that a process
// that was suspended meanwhile has not waited.
func (c *ScriptedConn) AwaitClose(t *testing.T) {
	t.Helper()
	for range 60 {
		select {
		case <-c.closed:
			return
		case <-time.After(time.Second):
		}
	}
	t.Fatal("the connection was not closed")
}
