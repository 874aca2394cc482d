package receiver

import (
	"context"
	"net"
	"time"

	"github.com/buffstreams/watermill-buffstreams/framing"
	"github.com/buffstreams/watermill-buffstreams/internal/acked/sim"
	"github.com/buffstreams/watermill-buffstreams/internal/flow"
	"github.com/buffstreams/watermill-buffstreams/internal/session"
	"github.com/buffstreams/watermill-buffstreams/store"
)

// simNode is a Receiver as the simulation runs it: without a socket, and without a goroutine of its own. What its
// goroutines would do, the simulation does when its seed says so.
type simNode struct {
	*Receiver
	small framing.Codec // of the greeting
}

func newSimNode(cfg sim.NodeConfig) sim.Node {
	own := Config{
		MaxMessageSize: cfg.MaxMessage, WindowMessages: cfg.Window.Messages, WindowBytes: cfg.Window.Bytes,
		Budget: flow.NewBudget(cfg.Memory), Groups: cfg.Groups,
	}
	if cfg.Store != nil {
		own.Dedupe = simStore{cfg.Store}
	}
	own = complete(own)
	r := newReceiver(own)
	if own.Dedupe != nil {
		r.committer = newCommitter(own.Dedupe, own.Logger)
	}
	var err error
	if r.codec, err = session.NewCodec(own.MaxMessageSize); err != nil {
		panic(err) // the simulation chooses the size
	}
	n := &simNode{Receiver: r}
	if n.small, err = session.GreetingCodec(); err != nil {
		panic(err)
	}
	return n
}

func (n *simNode) Close() { _ = n.Receiver.Close(context.Background()) }

// Accept is admit and the beginning of serve.
func (n *simNode) Accept(w sim.Wire) sim.Port {
	c := newConn(n.Receiver, simConn{Wire: w})
	c.flusher.Close() // a kick does nothing from here on: the simulation flushes
	n.mu.Lock()
	n.counts.add(c.host, &n.cfg)
	n.conns[c] = struct{}{}
	n.mu.Unlock()
	return &simPort{conn: c, wire: w, reader: framing.NewReader(w, n.small)}
}

// simPort is a connection's reader and flusher.
type simPort struct {
	conn    *conn
	wire    sim.Wire
	reader  *framing.Reader
	greeted bool
}

// Read is serve, from where it stopped.
func (p *simPort) Read() error {
	if !p.greeted {
		if err := p.conn.greet(context.Background(), p.reader); err != nil {
			return err
		}
		p.greeted = true
		p.reader.SetCodec(p.conn.receiver.codec)
	}
	return p.conn.read(p.reader)
}

func (p *simPort) Flush() { p.conn.flush() }

func (p *simPort) End(err error) {
	p.conn.terminate(err)
	if p.conn.failureSent { // the flusher would have written that before the connection was closed
		p.wire.(interface{ LastWord(func()) }).LastWord(p.conn.flush)
	}
}

// simConn is a Wire as a net.Conn. The simulation keeps the time.
type simConn struct{ sim.Wire }

func (simConn) LocalAddr() net.Addr              { return simAddr{} }
func (simConn) RemoteAddr() net.Addr             { return simAddr{} }
func (simConn) SetDeadline(time.Time) error      { return nil }
func (simConn) SetReadDeadline(time.Time) error  { return nil }
func (simConn) SetWriteDeadline(time.Time) error { return nil }

type simAddr struct{}

func (simAddr) Network() string { return "sim" }
func (simAddr) String() string  { return "sim" }

// simStore is a sim.Store as a DedupeStore.
type simStore struct{ sim.Store }

func (s simStore) Load(id store.StreamID) (store.StreamState, bool, error) {
	state, ok, err := s.Store.Load(sim.StreamID(id))
	return store.StreamState(state), ok, err
}

func (s simStore) Save(states map[store.StreamID]store.StreamState) error {
	all := make(map[sim.StreamID]sim.StreamState, len(states))
	for id, state := range states {
		all[sim.StreamID(id)] = sim.StreamState(state)
	}
	return s.Store.Save(all)
}

func (s simStore) Forget(id store.StreamID) error { return s.Store.Forget(sim.StreamID(id)) }
