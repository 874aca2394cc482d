package buffstreams

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/buffstreams/watermill-buffstreams/internal/acked/receiver"
	"github.com/buffstreams/watermill-buffstreams/internal/acked/sender"
	"github.com/buffstreams/watermill-buffstreams/internal/dispatch"
	"github.com/buffstreams/watermill-buffstreams/internal/flow"
	"github.com/buffstreams/watermill-buffstreams/internal/flush"
	"github.com/buffstreams/watermill-buffstreams/internal/hook"
	"github.com/buffstreams/watermill-buffstreams/internal/netio"
	"github.com/buffstreams/watermill-buffstreams/internal/session"
	"github.com/buffstreams/watermill-buffstreams/pool"
)

// Manager owns the connections and listeners of any number of publishers and subscribers, which share them, and the
// memory for what is on its way. It is safe for concurrent use.
type Manager struct {
	cfg       ManagerConfig
	dial      netio.Dial
	plain     *pool.Manager // the writers to plain peers
	peers     plainPeers    // that plain writes to
	plainUses plainUses     // of those
	told      plainHooks    // of plain, and of listeners for plain peers
	streams   atomic.Uint64 // the number given last
	held      *flow.Budget  // of the receivers
	kept      *flow.Budget  // of the senders
	workers   *flush.Workers
	hooks     *hook.Set // nil: none
	ticker    *sender.Ticker
	mover     sender.Mover    // of the senders
	ended     context.Context // ends when all that was on its way is accounted for, and with it the ticker and what waits
	end       context.CancelFunc
	wg        sync.WaitGroup // the ticker, and what waits for a Ready

	subscriptions subscriptions
	stats         statsCache[ManagerStats]
	changes       changes // of the states of addresses

	failures failureQueue
	done     chan struct{} // closed at the end of Close
	closeErr error         // of Close, once done is closed

	mu        sync.Mutex                // guards the fields below, to holding; not held while anything is opened or closed
	addresses map[netio.Target]*address // by canonical target
	writers   []string                  // the keys of plain
	listeners map[netio.Target]*opening
	ticking   bool
	closed    bool
	holds     int           // Ready channels that are open
	routing   []*Publisher  // that have routes; never changed in place
	left      []*leftBehind // that hold messages

	closing map[*closingListener]struct{} // those of CloseListener

	holding sync.Mutex // held while a change of holds is applied to the listeners
}

// listener is what listens at one address: for the acked protocol, or for plain peers.
type listener interface {
	Addr() net.Addr
	// Done is closed when the listener is: nothing arrives any more.
	Done() <-chan struct{}
	Topic(name string) *dispatch.Topic
	// EphemeralTopic returns a topic that ends with its last member.
	EphemeralTopic(name string) *dispatch.Topic
	// Hold keeps topics that have given no room yet from giving any, until it is called with false.
	Hold(held bool)
	// Drain has publishers send nothing more. What was received can still be settled.
	Drain()
	// OnlyCopies is the number of unsettled messages that may exist nowhere else, and that subscriptions may handle.
	OnlyCopies() int
	// AwaitAnswers waits until it is known which publishers keep what is not settled, or ctx is done.
	AwaitAnswers(ctx context.Context)
	// EndMembers closes Done. The end of the subscriptions follows: see HasMembers.
	EndMembers()
	// HasMembers reports whether there are subscriptions.
	HasMembers() bool
	// SyncAcks returns when the acks of a topic that are due were written, or ctx is done.
	SyncAcks(ctx context.Context, t *dispatch.Topic)
	// Knows reports whether a publisher has sent to this listener: one of the Manager's own is known by its id.
	Knows(publisher [16]byte) bool
	// Unkept returns, by topic, the unsettled messages that no subscription has and no publisher keeps.
	Unkept() map[string][][]byte
	// Stats describes the listener. Missing reports whether it drains, and the declared groups that do not exist yet.
	Stats() receiver.Stats
	Missing() (draining bool, missing map[string][]string)
	Close(ctx context.Context) error
}

// opening is a listener that is there, or will be when done is closed.
type opening struct {
	done     chan struct{}
	built    bool // guarded by Manager.holding
	listener listener
	err      error
}

// NewManager returns a Manager that holds nothing yet. Close it when its publishers and subscribers are closed.
func NewManager(cfg ManagerConfig) (*Manager, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg.setDefaults()
	plain, err := pool.NewManager(pool.ManagerConfig{Dial: cfg.Dial, DialAllow: cfg.DialAllow, Logger: cfg.Logger})
	if err != nil {
		return nil, err
	}
	m := &Manager{
		cfg: cfg, dial: cfg.dial(), plain: plain,
		held: newBudget(cfg.Acked), kept: newBudget(cfg.Acked),
		workers: flush.NewWorkers(), ticker: sender.NewTicker(cfg.Acked.PingAfter), done: make(chan struct{}),
		addresses: map[netio.Target]*address{}, listeners: map[netio.Target]*opening{},
		failures: failureQueue{hook: cfg.OnFailure, logger: cfg.Logger}, hooks: hook.NewSet(cfg.Hooks, cfg.Logger),
	}
	m.ended, m.end = context.WithCancel(context.Background())
	m.told.set = m.hooks
	m.holdUntil(cfg.Ready, nil)
	return m, nil
}

// newBudget is what bounds one direction. A message of any size finds room beside what others hold.
func newBudget(cfg AckedConfig) *flow.Budget {
	b := flow.NewBudget(cfg.MemoryLimit)
	b.ReserveFor(session.EncodedSize(cfg.MaxMessageSize))
	return b
}

// PeerStatus says where things stand with the peer at one address.
type PeerStatus struct {
	// Connected tells whether the peer has welcomed a connection and takes messages.
	Connected bool
	// Pending is the number of messages for the peer that are not settled, over all topics.
	Pending int
}

// PeerStatus returns the state of the acked protocol with the peer at an address: host:port, tls://host:port or
// unix:///path. It is zero for a peer to which nothing was published, or that was forgotten as nothing uses it any
// more.
func (m *Manager) PeerStatus(address string) PeerStatus {
	target, err := parseAddress(address)
	if err != nil {
		return PeerStatus{}
	}
	m.mu.Lock()
	a := m.addresses[target.Canonical()]
	m.mu.Unlock()
	if a == nil {
		return PeerStatus{}
	}
	return PeerStatus{Connected: a.sender.Connected(), Pending: a.sender.Pending()}
}

// flushPlain returns the error of messages to a plain peer that have failed, none of those that ctx leaves unwritten.
func (m *Manager) flushPlain(ctx context.Context, key string) error {
	if err := m.plain.Flush(ctx, key); ctx.Err() == nil {
		return err
	}
	return nil
}

// clientTLS is the configuration with which a target is dialed, or nil if it has no TLS.
func (m *Manager) clientTLS(t netio.Target) (*tls.Config, error) {
	if !t.TLS {
		return nil, nil
	}
	address := t.Address
	if t.ServerName != "" {
		address = net.JoinHostPort(t.ServerName, "0")
	}
	return netio.ClientTLS(m.cfg.Acked.ClientTLS, address)
}

func (m *Manager) senderConfig(t netio.Target) (sender.Config, error) {
	acked := &m.cfg.Acked
	secure, err := m.clientTLS(t)
	cfg := sender.Config{
		Target: t, TLS: secure, Dial: m.dial, Insecure: acked.Insecure,
		MaxMessageSize: acked.MaxMessageSize, WindowMessages: acked.WindowMessages, WindowBytes: acked.WindowBytes,
		HandshakeTimeout: acked.HandshakeTimeout, WriteTimeout: acked.WriteTimeout,
		PingAfter: acked.PingAfter, DeadAfter: acked.DeadAfter, ForgetAfter: acked.ForgetAfter, MoveAfter: acked.MoveAfter, Mover: &m.mover,
		Backoff: acked.Reconnect.BackOff, Identity: newIdentity(), NextStream: func() uint64 { return m.streams.Add(1) },
		Budget: m.kept, Workers: m.workers, Ticker: m.ticker, Logger: m.cfg.Logger,
		Address: formatAddress(t), Hooks: m.hooks,
		Refused: func(r session.Refused) { m.failures.add(r.Topic, r.Message, r.Err) },
	}
	if acked.Token != nil {
		cfg.Token = func(ctx context.Context) (string, error) { return acked.Token(ctx, formatAddress(t)) }
	}
	return cfg, err
}

// newIdentity is one sender's: a receiver that shared it with another could pose as this side there.
func newIdentity() session.Identity {
	id := session.Identity{Epoch: 1}
	_, _ = rand.Read(id.Publisher[:]) // never fails: see crypto/rand
	_, _ = rand.Read(id.Secret[:])
	return id
}

// listen returns the listener of the acked protocol at a target, and opens it where there is none.
func (m *Manager) listen(t netio.Target) (listener, error) {
	l, err := m.open(t, func() (listener, error) {
		cfg, err := m.receiverConfig(t)
		if err != nil {
			return nil, err
		}
		ln, err := netio.GuardedListen(m.cfg.Listen, t.Network, t.Address)
		if err != nil {
			return nil, m.explainInUse(t, err)
		}
		if !t.TLS && !m.cfg.Acked.Insecure && netio.BoundBeyondLoopback(ln.Addr()) {
			return nil, errors.Join(&InsecureAddressError{Address: t.Address}, ln.Close())
		}
		return receiver.New(cfg, ln)
	})
	if _, plain := l.(*plainReceiver); err == nil && plain {
		return nil, configError("SubscriberConfig.Wire", "this Manager listens for plain peers there: each wire needs an address of its own")
	}
	return l, err
}

// explainInUse says what to do about the commonest reasons for which a process cannot listen where it already does.
func (m *Manager) explainInUse(at netio.Target, err error) error {
	if !netio.InUse(err) {
		return err
	}
	if info, statErr := os.Lstat(at.Address); at.Network == "unix" && statErr == nil && info.Mode()&fs.ModeSocket == 0 {
		return fmt.Errorf("%w (what is there is no socket)", err)
	}
	_, port, _ := net.SplitHostPort(at.Address)
	for t := range m.openListeners() {
		if _, other, _ := net.SplitHostPort(t.Address); t.Network == at.Network && other == port && port != "" {
			return fmt.Errorf("%w (this Manager listens at %s: Subscribers at the same address have to spell it alike)", err, formatAddress(t))
		}
	}
	return fmt.Errorf("%w (Subscribers of one process that listen at the same address have to share a Manager)", err)
}

// forgetIdleAfter is how long a listener remembers a publisher that is away, and of which everything is handled. One
// that closes is forgotten at once.
const forgetIdleAfter = 24 * time.Hour

func (m *Manager) receiverConfig(t netio.Target) (receiver.Config, error) {
	acked := &m.cfg.Acked
	cfg := receiver.Config{
		Address: t.Address, MaxMessageSize: acked.MaxMessageSize, WindowMessages: acked.WindowMessages, WindowBytes: acked.WindowBytes,
		MaxConnections: acked.MaxConnections, MaxConnectionsPerHost: acked.MaxConnectionsPerHost,
		MaxTopics: acked.MaxTopics, MaxPublishers: acked.MaxPublishers, MaxStreams: acked.MaxStreams,
		HandshakeTimeout: acked.HandshakeTimeout, WriteTimeout: acked.WriteTimeout,
		DeadAfter: acked.DeadAfter, ForgetAfter: acked.ForgetAfter, ForgetIdleAfter: forgetIdleAfter, Groups: acked.Groups, Dedupe: acked.Dedupe,
		Authenticate: acked.authenticate(), Authorize: acked.authorize(),
		Budget: m.held, Workers: m.workers, Logger: m.cfg.Logger, Hooks: m.hooks,
	}
	switch {
	case t.TLS && acked.ServerTLS == nil:
		return cfg, configError("AckedConfig.ServerTLS", "is needed to listen at tls://%s", t.Address)
	case t.TLS:
		cfg.TLS = netio.ServerTLS(acked.ServerTLS)
	case !acked.Insecure && netio.Exposed(t.Network, t.Address):
		return cfg, &InsecureAddressError{Address: t.Address}
	}
	return cfg, nil
}

// open returns the listener at a target. The first caller builds it, the others wait for that.
func (m *Manager) open(t netio.Target, build func() (listener, error)) (listener, error) {
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return nil, ErrManagerClosed
	}
	if o := m.listeners[t]; o != nil {
		m.mu.Unlock()
		<-o.done
		return o.listener, o.err
	}
	o := &opening{done: make(chan struct{})}
	m.listeners[t] = o
	m.mu.Unlock()
	if o.listener, o.err = build(); o.err == nil {
		m.holdNew(o)
	}
	close(o.done)
	if o.err != nil {
		m.forget(t, o)
	}
	return o.listener, o.err
}

// forget takes a listener out of the Manager's, unless another one has its place by now.
func (m *Manager) forget(t netio.Target, o *opening) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.listeners[t] == o {
		delete(m.listeners, t)
	}
}
