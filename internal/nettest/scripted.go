package nettest

import (
	"bytes"
	"net"
	"sync"
	"testing"
	"time"
)

// ScriptedConn is a connection whose peer has said everything already, then hangs up; what it is told is kept.
type ScriptedConn struct {
	in     *bytes.Reader
	mu     sync.Mutex
	out    bytes.Buffer
	closed chan struct{}
	once   sync.Once
}

func NewScriptedConn(in []byte) *ScriptedConn {
	return &ScriptedConn{in: bytes.NewReader(in), closed: make(chan struct{})}
}

func (c *ScriptedConn) Read(p []byte) (int, error) {
	select {
	case <-c.closed:
		return 0, net.ErrClosed
	default:
		return c.in.Read(p)
	}
}

func (c *ScriptedConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.out.Write(p)
}

func (c *ScriptedConn) Told() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return bytes.Clone(c.out.Bytes())
}

func (c *ScriptedConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return nil
}

func (*ScriptedConn) LocalAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }

func (*ScriptedConn) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2), Port: 2} }

func (*ScriptedConn) SetDeadline(time.Time) error { return nil }

func (*ScriptedConn) SetReadDeadline(time.Time) error { return nil }

func (*ScriptedConn) SetWriteDeadline(time.Time) error { return nil }

// ends waits long, in many short waits: a process that was stopped meanwhile has not waited.
func (c *ScriptedConn) Ends(t *testing.T) {
	t.Helper()
	for range 60 {
		select {
		case <-c.closed:
			return
		case <-time.After(time.Second):
		}
	}
	t.Fatal("the connection goes on")
}
