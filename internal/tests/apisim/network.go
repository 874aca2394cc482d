package apisim

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// process is what can be killed: it owns sockets.
type process struct {
	name string
	dead atomic.Bool
}

var errDead = errors.New("apisim: the process is dead")

// pair is a connection between two processes.
type pair struct {
	client, server *process
	address        string
	a, b           *conn
}

func (p *pair) each(f func(*pipe)) { f(p.a.in); f(p.a.out) }

// reset breaks a connection at both ends, after some time.
func (p *pair) reset(after time.Duration) {
	p.each(func(x *pipe) {
		x.update(func() {
			if x.held { // it never arrived
				x.chunks, x.size = nil, 0
			}
			x.err, x.errAt, x.held = syscall.ECONNRESET, time.Now().Add(after), false
		})
	})
}

// hold makes both directions a black hole, or heals them.
func (p *pair) hold(held bool) { p.each(func(x *pipe) { x.update(func() { x.held = held }) }) }

// over reports whether both ends have closed, or that it is broken.
func (p *pair) over() bool {
	over := true
	p.each(func(x *pipe) {
		x.mu.Lock()
		over = over && (x.err != nil || x.eof)
		x.mu.Unlock()
	})
	return over
}

// network connects processes at addresses of the loopback.
type network struct {
	latency time.Duration
	room    int // bytes that a direction takes before a Write blocks

	mu        sync.Mutex
	listeners map[string]*listener
	pairs     []*pair
	refused   map[string]bool // addresses
	holes     map[string]bool // addresses
	mutes     map[string]bool // addresses that accept and pass nothing on
	change    chan struct{}   // closed, and replaced, when holes change
	ports     int
	dials     map[string]int // by process, address and second
	hot       string         // who dials in a loop
}

func newNetwork(latency time.Duration, room int) *network {
	return &network{
		latency: latency, room: room, listeners: map[string]*listener{}, refused: map[string]bool{}, holes: map[string]bool{},
		mutes:  map[string]bool{},
		change: make(chan struct{}), ports: 40000, dials: map[string]int{},
	}
}

// dialer is what a process dials with.
func (n *network) dialer(p *process) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, _, address string) (net.Conn, error) {
		for {
			n.mu.Lock()
			hole, change := n.holes[address] || p.dead.Load(), n.change
			n.mu.Unlock()
			if !hole {
				break
			}
			select {
			case <-change:
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		select {
		case <-time.After(n.latency):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		return n.connect(p, address)
	}
}

func (n *network) connect(p *process, address string) (net.Conn, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	second := fmt.Sprintf("%s %s %d", p.name, address, time.Now().Unix())
	if n.dials[second]++; n.dials[second] > 60 {
		n.hot = second
	}
	l := n.listeners[address]
	if l == nil || n.refused[address] || p.dead.Load() {
		return nil, fmt.Errorf("dial %s: %w", address, syscall.ECONNREFUSED)
	}
	n.ports++
	there, back := newPipe(n.latency, n.room), newPipe(n.latency, n.room)
	from := addr("127.0.0.1:" + strconv.Itoa(n.ports))
	x := &pair{client: p, server: l.owner, address: address,
		a: &conn{owner: p, in: back, out: there, local: from, remote: addr(address)},
		b: &conn{owner: l.owner, in: there, out: back, local: addr(address), remote: from},
	}
	select {
	case l.queue <- x.b:
	default:
		return nil, fmt.Errorf("dial %s: %w", address, syscall.ECONNREFUSED)
	}
	live := n.pairs[:0]
	for _, old := range n.pairs {
		if !old.over() {
			live = append(live, old)
		}
	}
	n.pairs = append(live, x)
	if n.mutes[address] {
		x.hold(true)
	}
	return x.a, nil
}

// listen is what a process listens with.
func (n *network) listen(p *process) func(string, string) (net.Listener, error) {
	return func(_, address string) (net.Listener, error) {
		n.mu.Lock()
		defer n.mu.Unlock()
		switch {
		case p.dead.Load():
			return nil, errDead
		case n.listeners[address] != nil:
			return nil, fmt.Errorf("listen %s: %w", address, syscall.EADDRINUSE)
		}
		l := &listener{net: n, owner: p, address: address, queue: make(chan net.Conn, 128), done: make(chan struct{})}
		n.listeners[address] = l
		return l, nil
	}
}

// kill ends a process: its peers see a reset, or, if it is silent, nothing at all.
func (n *network) kill(p *process, silent bool) {
	p.dead.Store(true)
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, l := range n.listeners {
		if l.owner == p {
			l.shutLocked()
		}
	}
	for _, x := range n.pairs {
		if x.client != p && x.server != p {
			continue
		}
		if silent {
			x.hold(true)
		} else {
			x.reset(n.latency) // its host says so behind what it has written
		}
	}
}

// cut resets every connection to an address.
func (n *network) cut(address string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, x := range n.pairs {
		if x.address == address {
			x.reset(0)
		}
	}
}

// blackHole swallows everything from and to an address, or ends that.
func (n *network) blackHole(address string, on bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.holes[address] = on
	close(n.change)
	n.change = make(chan struct{})
	for _, x := range n.pairs {
		if x.address != address {
			continue
		}
		if !on && (x.client.dead.Load() || x.server.dead.Load()) {
			x.reset(0) // the other end is gone, and its host now says so
		} else {
			x.hold(on)
		}
	}
}

// mute has an address accept connections and pass nothing on, or ends that.
func (n *network) mute(address string, on bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.mutes[address] = on
	for _, x := range n.pairs {
		if x.address == address {
			x.hold(on)
		}
	}
}

// refuse turns every new connection to an address away, or ends that.
func (n *network) refuse(address string, on bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.refused[address] = on
}

// heal ends all faults.
func (n *network) heal(addresses []string) {
	for _, a := range addresses {
		n.refuse(a, false)
		n.mute(a, false)
		n.blackHole(a, false)
	}
}

type addr string

func (a addr) Network() string { return "tcp" }
func (a addr) String() string  { return string(a) }

type listener struct {
	net     *network
	owner   *process
	address string
	queue   chan net.Conn
	once    sync.Once
	done    chan struct{}
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.queue:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *listener) Close() error {
	l.net.mu.Lock()
	defer l.net.mu.Unlock()
	l.shutLocked()
	return nil
}

// shutLocked frees the address, and resets who waits to be accepted. The caller must hold the network's mu.
func (l *listener) shutLocked() {
	l.once.Do(func() {
		close(l.done)
		if l.net.listeners[l.address] == l {
			delete(l.net.listeners, l.address)
		}
		for {
			select {
			case c := <-l.queue:
				_ = c.Close()
			default:
				return
			}
		}
	})
}

func (l *listener) Addr() net.Addr { return addr(l.address) }
