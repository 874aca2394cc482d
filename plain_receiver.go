package buffstreams

import (
	"cmp"
	"context"
	"crypto/tls"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill"

	"github.com/buffstreams/watermill-buffstreams/hooks"
	"github.com/buffstreams/watermill-buffstreams/internal/acked/receiver"
	"github.com/buffstreams/watermill-buffstreams/internal/dispatch"
	"github.com/buffstreams/watermill-buffstreams/internal/flow"
	"github.com/buffstreams/watermill-buffstreams/internal/netio"
	"github.com/buffstreams/watermill-buffstreams/internal/session"
	"github.com/buffstreams/watermill-buffstreams/pool"
)

// plainReceiver listens for plain BuffStreams peers and puts what they send into one topic, whose name is empty.
// Nothing can be acked to them: a full window holds them back through TCP.
type plainReceiver struct {
	topic     *dispatch.Topic
	listener  *pool.Listener
	limit     int // of a message, in bytes
	guests    plainGuests
	fields    watermill.LogFields
	logger    watermill.LoggerAdapter
	held      atomic.Int64  // messages that are not settled: they exist nowhere else
	abandoned chan struct{} // closed when Close begins: no consumer makes room any more
	done      chan struct{} // closed when the subscriptions are to end
	draining  sync.Once
	drains    atomic.Bool
	holds     atomic.Bool // a Ready channel is open
	received  atomic.Uint64
	rejected  atomic.Uint64
	ending    sync.Once // closes done
}

// listenPlain returns the listener for plain peers at a target, and opens it where there is none.
func (m *Manager) listenPlain(t netio.Target, maxMessageSize int) (listener, error) {
	maxMessageSize = cmp.Or(maxMessageSize, pool.DefaultMaxMessageSize)
	l, err := m.open(t, func() (listener, error) { return m.newPlainReceiver(t, maxMessageSize) })
	if err != nil {
		return nil, err
	}
	switch p, plain := l.(*plainReceiver); {
	case !plain:
		return nil, configError("SubscriberConfig.Wire", "this Manager listens for peers on the acked wire there: each wire needs an address of its own")
	case p.limit != maxMessageSize:
		return nil, configError("SubscriberConfig.MaxMessageSize", "this Manager listens there with %d, not %d: of that the framing depends", p.limit, maxMessageSize)
	}
	return l, nil
}

func (m *Manager) newPlainReceiver(t netio.Target, maxMessageSize int) (*plainReceiver, error) {
	cfg, err := m.plainConfig(t, maxMessageSize)
	if err != nil {
		return nil, err
	}
	acked := &m.cfg.Acked
	window := flow.NewWindow(flow.Amount{Messages: acked.WindowMessages, Bytes: acked.WindowBytes}, m.held)
	p := &plainReceiver{
		topic:  dispatch.NewTopic("", window, session.EncodedSize, acked.Groups[""]...),
		limit:  maxMessageSize,
		fields: watermill.LogFields{"provider": netio.Provider, "address": t.Address}, logger: m.cfg.Logger,
		guests:    plainGuests{listener: t.Address, hooks: &m.told},
		abandoned: make(chan struct{}), done: make(chan struct{}),
	}
	receiver.LogBehind(p.topic, t.Address, m.cfg.Logger)
	cfg.Callback, cfg.Hooks = p.receive, []hooks.Hook{&p.guests}
	if p.listener, err = pool.ListenTCP(cfg); err != nil {
		return nil, m.explainInUse(t, err)
	}
	return p, p.listener.StartListeningAsync()
}

// plainConfig is the configuration of a listener for plain peers, but for what is told of them.
func (m *Manager) plainConfig(t netio.Target, maxMessageSize int) (pool.ListenerConfig, error) {
	acked := &m.cfg.Acked
	cfg := pool.ListenerConfig{
		Network: t.Network, Address: t.Address, MaxMessageSize: maxMessageSize,
		Insecure: acked.Insecure, MaxConnections: acked.MaxConnections, MaxConnectionsPerHost: acked.MaxConnectionsPerHost,
		HandshakeTimeout: acked.HandshakeTimeout, Admit: m.plainAdmission(t), Listen: m.cfg.Listen, Logger: m.cfg.Logger,
	}
	if t.TLS {
		if cfg.TLSConfig = acked.ServerTLS; cfg.TLSConfig == nil {
			return cfg, configError("AckedConfig.ServerTLS", "is needed to listen at tls://%s", t.Address)
		}
	}
	return cfg, nil
}

// plainAdmission asks the hooks about a plain peer, which says no hello.
func (m *Manager) plainAdmission(t netio.Target) func(context.Context, net.Conn) error {
	guard := receiver.NewGuard(receiver.Config{
		Authenticate: m.cfg.Acked.authenticate(), Authorize: m.cfg.Acked.authorize(),
		HandshakeTimeout: m.cfg.Acked.HandshakeTimeout, Logger: m.cfg.Logger, Address: t.Address,
	})
	return func(ctx context.Context, conn net.Conn) error {
		peer := receiver.Peer{Address: conn.RemoteAddr()}
		if secured, ok := conn.(*tls.Conn); ok {
			state := secured.ConnectionState()
			peer.TLS = &state
		}
		principal, refused := guard.Admit(ctx, peer)
		if refused == nil {
			refused = guard.Allow(ctx, receiver.Access{Principal: principal, Address: conn.RemoteAddr()})
		}
		if refused != nil {
			return refused
		}
		return nil
	}
}

// Addr implements listener.
func (p *plainReceiver) Addr() net.Addr { return p.listener.Addr() }

// Done implements listener.
func (p *plainReceiver) Done() <-chan struct{} { return p.done }

// Topic implements listener: there is one.
func (p *plainReceiver) Topic(string) *dispatch.Topic { return p.topic }

// EphemeralTopic implements listener: plain peers could not be told that it has ended.
func (p *plainReceiver) EphemeralTopic(string) *dispatch.Topic { return p.topic }

// Hold implements listener.
func (p *plainReceiver) Hold(held bool) {
	p.holds.Store(held)
	p.topic.Hold(held)
}

// OnlyCopies implements listener.
func (p *plainReceiver) OnlyCopies() int {
	if !p.topic.HasMembers() {
		return 0
	}
	return int(p.held.Load())
}

// AwaitAnswers implements listener: plain peers answer nothing.
func (p *plainReceiver) AwaitAnswers(context.Context) {}

// EndMembers implements listener.
func (p *plainReceiver) EndMembers() { p.ending.Do(func() { close(p.done) }) }

// HasMembers implements listener.
func (p *plainReceiver) HasMembers() bool { return p.topic.HasMembers() }

// SyncAcks implements listener: plain peers get no acks.
func (p *plainReceiver) SyncAcks(context.Context, *dispatch.Topic) {}

// Knows implements listener: plain peers have no ids.
func (p *plainReceiver) Knows([16]byte) bool { return false }

// Unkept implements listener.
func (p *plainReceiver) Unkept() map[string][][]byte {
	return map[string][][]byte{p.topic.Name(): p.topic.Unkept()}
}

// Stats implements listener. Peers say no hello: they have neither a principal nor an agent.
func (p *plainReceiver) Stats() receiver.Stats {
	return receiver.Stats{
		Draining: p.drains.Load(), Held: p.holds.Load(), Peers: p.guests.peers(), Received: p.received.Load(), Rejected: p.rejected.Load(),
		Topics: []receiver.TopicStats{{Stats: p.topic.Stats()}},
	}
}

// Missing implements listener.
func (p *plainReceiver) Missing() (draining bool, missing map[string][]string) {
	if groups := p.topic.Missing(); len(groups) > 0 {
		missing = map[string][]string{"": groups}
	}
	return p.drains.Load(), missing
}

// Drain closes the socket and the connections. What peers have sent by then is taken, for which consumers may have to
// make room.
func (p *plainReceiver) Drain() {
	p.draining.Do(func() {
		p.drains.Store(true)
		if err := p.listener.Close(); err != nil {
			p.logger.Error("What plain peers were sending was cut", err, p.fields)
		}
	})
}

// Close implements listener.
func (p *plainReceiver) Close(context.Context) error {
	close(p.abandoned)
	p.Drain()
	p.EndMembers()
	p.topic.Close()
	return nil
}

// receive is the listener's callback. It blocks while the window is full, or while no consumer exists yet.
func (p *plainReceiver) receive(data []byte) error {
	room := flow.Amount{Messages: 1, Bytes: session.EncodedSize(len(data))}
	if !p.reserve(room) {
		return pool.ErrClosed
	}
	p.held.Add(1)
	p.received.Add(1)
	p.topic.Append(p, 0, [][]byte{data}, time.Now(), nil)
	return nil
}

// reserve waits for room in the window. It returns false when the receiver closes.
func (p *plainReceiver) reserve(room flow.Amount) bool {
	w := p.topic.Window()
	if got := w.Take(room); got == room {
		return true
	} else if got != (flow.Amount{}) {
		w.Release(got)
	}
	granted := make(chan struct{})
	claim := &flow.Claim{Want: room, Enough: room, Least: room, Grant: func(flow.Amount) { close(granted) }}
	w.Wait(claim)
	p.topic.CheckBehind()
	select {
	case <-granted:
		return true
	case <-p.abandoned:
	}
	w.Cancel(claim)
	select {
	case <-granted: // it was on its way
		w.Release(room)
	default:
	}
	return false
}

// Settled implements dispatch.Source.
func (p *plainReceiver) Settled(first, last uint64) { p.held.Add(-int64(last - first + 1)) }

// Kept implements dispatch.Source: plain peers keep nothing.
func (p *plainReceiver) Kept() bool { return false }

// Refused implements dispatch.Source.
func (p *plainReceiver) Refused(_ uint64, r dispatch.Refusal) {
	p.held.Add(-1)
	p.rejected.Add(1)
	p.logger.Error("Message lost: it was refused, and a plain peer cannot be told", nil,
		p.fields.Add(watermill.LogFields{"reason": r.Reason}))
	if r.Unheard != nil {
		r.Unheard()
	}
}
