package testkit

import (
	"context"
	"errors"
	"net"
	"sync"
)

// Network is a network in memory, without buffers: each Dial puts the server's end of a new pipe into Servers, or fails
// while the network is down. It works inside a synctest bubble.
type Network struct {
	Servers chan net.Conn

	mu    sync.Mutex // guards down and dials
	down  bool
	dials int
}

// ErrNetworkDown is what Dial returns while the network is down.
var ErrNetworkDown = errors.New("network is down")

// NewNetwork returns a network that is up, with room for 100 connections that were not taken from Servers.
func NewNetwork() *Network { return &Network{Servers: make(chan net.Conn, 100)} }

// Dial has the signature of netio.Dial.
func (n *Network) Dial(ctx context.Context, _, _ string) (net.Conn, error) {
	n.mu.Lock()
	n.dials++
	down := n.down
	n.mu.Unlock()
	if down {
		return nil, ErrNetworkDown
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	client, server := net.Pipe()
	n.Servers <- server
	return client, nil
}

// SetDown decides whether the dials from now on fail.
func (n *Network) SetDown(down bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.down = down
}

// Dialed counts the dials so far, failed ones included.
func (n *Network) Dialed() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.dials
}

// PipeListener is a net.Listener whose connections and errors the test provides.
type PipeListener struct {
	Accepts chan any // net.Conn or error
	Closed  chan struct{}
	once    sync.Once
}

// NewPipeListener returns a listener that nothing has connected to.
func NewPipeListener() *PipeListener {
	return &PipeListener{Accepts: make(chan any, 10), Closed: make(chan struct{})}
}

// Listen returns the listener itself, whatever it is asked for.
func (l *PipeListener) Listen(string, string) (net.Listener, error) { return l, nil }

// Connect returns the client's end of a pipe whose other end Accept returns.
func (l *PipeListener) Connect() net.Conn {
	client, server := net.Pipe()
	l.Accepts <- server
	return client
}

// Accept implements net.Listener.
func (l *PipeListener) Accept() (net.Conn, error) {
	select {
	case a := <-l.Accepts:
		if err, ok := a.(error); ok {
			return nil, err
		}
		return a.(net.Conn), nil //nolint:forcetypeassert // a panic is a test's failure
	case <-l.Closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (l *PipeListener) Close() error {
	l.once.Do(func() { close(l.Closed) })
	return nil
}

// Addr implements net.Listener.
func (l *PipeListener) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }
