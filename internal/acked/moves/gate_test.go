package moves

import (
	"net"
	"sync"
)

// gate is a listener whose connections a test can stop or reset.
type gate struct {
	net.Listener
	mu     sync.Mutex
	open   *sync.Cond
	paused bool
	conns  []*gatedConn
}

func newGate(l net.Listener) *gate {
	g := &gate{Listener: l}
	g.open = sync.NewCond(&g.mu)
	return g
}

func (g *gate) Accept() (net.Conn, error) {
	c, err := g.Listener.Accept()
	if err != nil {
		return nil, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	gated := &gatedConn{Conn: c, gate: g}
	g.conns = append(g.conns, gated)
	return gated, nil
}

// kill looks from outside as the end of the process: nothing listens, and connections are reset.
func (g *gate) kill() {
	_ = g.Close()
	g.reset()
}

// reset loses the connections.
func (g *gate) reset() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, c := range g.conns {
		if tcp, ok := c.Conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
		_ = c.Close()
	}
	g.conns = nil
}

// pause looks from outside as a process that was stopped: the kernel takes what comes, and nothing is said.
func (g *gate) pause() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.paused = true
}

func (g *gate) resume() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.paused = false
	g.open.Broadcast()
}

func (g *gate) pass() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.paused {
		g.open.Wait()
	}
}

type gatedConn struct {
	net.Conn
	gate *gate
}

func (c *gatedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.gate.pass()
	return n, err
}

func (c *gatedConn) Write(p []byte) (int, error) {
	c.gate.pass()
	return c.Conn.Write(p)
}
