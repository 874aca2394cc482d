package nettest

import (
	"context"
	"errors"
	"net"
	"sync"
)

// Pipes is a network in memory: each dial hands the other end to servers, or
// fails while it is down. It works inside a synctest bubble.
type Pipes struct {
	Servers chan net.Conn

	mu    sync.Mutex
	down  bool
	dials int
}

var ErrNetworkDown = errors.New("network is down")

func NewPipes() *Pipes { return &Pipes{Servers: make(chan net.Conn, 100)} }

func (p *Pipes) Dial(ctx context.Context, _, _ string) (net.Conn, error) {
	p.mu.Lock()
	p.dials++
	down := p.down
	p.mu.Unlock()
	if down {
		return nil, ErrNetworkDown
	}
	client, server := net.Pipe()
	p.Servers <- server
	return client, ctx.Err()
}

func (p *Pipes) SetDown(down bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = down
}

func (p *Pipes) Dialed() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.dials
}

// PipeListener is a net.Listener whose connections the test pushes.
type PipeListener struct {
	Accepts chan any // net.Conn or error
	Closed  chan struct{}
	once    sync.Once
}

func NewPipeListener() *PipeListener {
	return &PipeListener{Accepts: make(chan any, 10), Closed: make(chan struct{})}
}

func (p *PipeListener) Listen(string, string) (net.Listener, error) { return p, nil }

func (p *PipeListener) Connect() net.Conn {
	client, server := net.Pipe()
	p.Accepts <- server
	return client
}

func (p *PipeListener) Accept() (net.Conn, error) {
	select {
	case a := <-p.Accepts:
		if err, ok := a.(error); ok {
			return nil, err
		}
		return a.(net.Conn), nil
	case <-p.Closed:
		return nil, net.ErrClosed
	}
}

func (p *PipeListener) Close() error {
	p.once.Do(func() { close(p.Closed) })
	return nil
}

func (p *PipeListener) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }
