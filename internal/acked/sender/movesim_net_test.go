package sender

import (
	"context"
	"net"
	"os"
	"sync"
	"syscall"
)

// simHost is the network of one simulated host: an address that can be dialed while something listens there.
type simHost struct {
	mu       sync.Mutex
	resumed  *sync.Cond
	listener *simListener // nil: nothing listens
	paused   bool         // nothing is read or written there
	conns    []net.Conn   // both ends of all
}

func newSimHost() *simHost {
	h := &simHost{}
	h.resumed = sync.NewCond(&h.mu)
	return h
}

func (h *simHost) listen() *simListener {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.listener = &simListener{host: h, accepts: make(chan net.Conn, 100), closed: make(chan struct{})}
	return h.listener
}

// dial is a netio.Dial.
func (h *simHost) dial(context.Context, string, string) (net.Conn, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.listener == nil {
		return nil, &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	}
	client, server := net.Pipe()
	h.conns = append(h.conns, client, server)
	h.listener.accepts <- &simConn{server, h}
	return client, nil
}

// reset loses all connections.
func (h *simHost) reset() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, c := range h.conns {
		_ = c.Close()
	}
	h.conns = nil
}

func (h *simHost) pause(paused bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.paused = paused
	h.resumed.Broadcast()
}

func (h *simHost) isPaused() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.paused
}

func (h *simHost) pass() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for h.paused {
		h.resumed.Wait()
	}
}

// simListener is one life's.
type simListener struct {
	host    *simHost
	accepts chan net.Conn
	once    sync.Once
	closed  chan struct{}
}

func (l *simListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.accepts:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *simListener) Close() error {
	l.once.Do(func() {
		l.host.mu.Lock()
		defer l.host.mu.Unlock()
		if l.host.listener == l {
			l.host.listener = nil
		}
		close(l.closed)
	})
	return nil
}

func (l *simListener) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }

// simConn is a host's end of a connection.
type simConn struct {
	net.Conn
	host *simHost
}

func (c *simConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.host.pass()
	return n, err
}

func (c *simConn) Write(p []byte) (int, error) {
	c.host.pass()
	return c.Conn.Write(p)
}
