package receiver

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill"

	"github.com/buffstreams/watermill-buffstreams/framing"
	"github.com/buffstreams/watermill-buffstreams/internal/dispatch"
	"github.com/buffstreams/watermill-buffstreams/internal/flow"
	"github.com/buffstreams/watermill-buffstreams/internal/flush"
	"github.com/buffstreams/watermill-buffstreams/internal/netio"
	"github.com/buffstreams/watermill-buffstreams/internal/session"
	"github.com/buffstreams/watermill-buffstreams/store"
)

// ErrClosed means that the Receiver was closed.
var ErrClosed = errors.New("buffstreams: the listener is closed")

// Config configures a Receiver. Every field is needed but TLS, Groups, Dedupe and the hooks.
type Config struct {
	Address string      // for logs
	TLS     *tls.Config // nil: plaintext, with checksums

	MaxMessageSize                                       int // of one encoded message, in bytes
	WindowMessages, WindowBytes                          int // of each topic
	MaxConnections, MaxTopics, MaxPublishers, MaxStreams int
	MaxConnectionsPerHost                                int // negative: no bound
	HandshakeTimeout, WriteTimeout                       time.Duration
	DeadAfter, ForgetAfter                               time.Duration

	Authenticate func(context.Context, Peer) (principal string, err error)
	Authorize    func(context.Context, Access) error
	Groups       map[string][]string // declared, by topic
	Dedupe       store.DedupeStore

	Budget  *flow.Budget
	Workers *flush.Workers
	Logger  watermill.LoggerAdapter
}

func (c *Config) window() flow.Amount {
	return flow.Amount{Messages: c.WindowMessages, Bytes: c.WindowBytes}
}

// Endpoint is the receiving side at one address: it accepts connections, keeps the topics that publishers send to, and
// what it remembers of their streams. It is safe for concurrent use.
//
// mu guards the maps and closing. Locks are taken in this order: the Endpoint's, a stream's, then a connection's or a
// topic's.
type Receiver struct {
	cfg       Config
	ln        net.Listener
	wg        sync.WaitGroup // accept loop and connections
	codec     framing.Codec  // of every frame after the greeting
	committer *committer     // nil without a DedupeStore
	stop      chan struct{}  // closed by Drain
	abandoned chan struct{}  // closed when Close begins
	ctx       context.Context
	cancel    context.CancelFunc // called when Close begins: the hooks of the user end
	guard     Guard
	done      chan struct{} // closed when Close is through

	mu            sync.Mutex
	topics        map[string]*dispatch.Topic
	publishers    map[[16]byte]*publisher
	streams       map[*dispatch.Topic]map[*stream]struct{} // of each topic
	count         int                                      // of streams
	gone          tombstones
	forgotten     int // publishers that returned and were not known, since that was said
	forgottenSaid time.Time
	fullUntil     time.Time // nothing can be forgotten before
	conns         map[*conn]struct{}
	counts        connections // of conns
	closing       bool
}

// newEndpoint serves a listening socket, which is its own from now on.
func New(cfg Config, ln net.Listener) (*Receiver, error) {
	codec, err := session.NewCodec(cfg.MaxMessageSize)
	if err != nil {
		return nil, errors.Join(err, ln.Close())
	}
	e := newReceiver(cfg)
	e.ln, e.codec = ln, codec
	if cfg.Dedupe != nil {
		e.committer = newCommitter(cfg.Dedupe, cfg.Logger)
	}
	e.wg.Go(e.accept) // ends when Drain closes the socket
	return e, nil
}

func newReceiver(cfg Config) *Receiver {
	ctx, cancel := context.WithCancel(context.Background())
	return &Receiver{
		ctx: ctx, cancel: cancel, guard: NewGuard(cfg),
		counts: connections{perHost: map[string]int{}},
		cfg:    cfg, stop: make(chan struct{}), abandoned: make(chan struct{}), done: make(chan struct{}),
		topics:     map[string]*dispatch.Topic{},
		publishers: map[[16]byte]*publisher{},
		streams:    map[*dispatch.Topic]map[*stream]struct{}{},
		conns:      map[*conn]struct{}{},
	}
}

// Addr is the address it listens at.
func (e *Receiver) Addr() net.Addr {
	return e.ln.Addr()
}

// Topic returns a topic, and makes it where there is none.
func (e *Receiver) Topic(name string) *dispatch.Topic {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.gone.remove(name)
	return e.topic(name)
}

// EphemeralTopic returns a topic that ends with its last member: its publishers are told, and for a while everybody who
// opens it later; then it is forgotten.
func (e *Receiver) EphemeralTopic(name string) *dispatch.Topic {
	t := e.Topic(name)
	t.MakeEphemeral(func(dropped int) { e.end(t, dropped) })
	return t
}

func (e *Receiver) topic(name string) *dispatch.Topic {
	t := e.topics[name]
	if t == nil {
		w := flow.NewWindow(e.cfg.window(), e.cfg.Budget)
		t = dispatch.NewTopic(name, w, e.size, e.cfg.Groups[name]...)
		if e.cfg.Dedupe != nil { // it bounds what comes twice by what is in flight
			t.AckImmediately()
		}
		e.topics[name] = t
	}
	return t
}

// Done is closed when the endpoint is closed: nothing arrives any more.
func (e *Receiver) Done() <-chan struct{} { return e.done }

// size is what a message of n bytes takes of a window.
func (e *Receiver) size(n int) int { return session.EncodedSize(n) }

// accept takes connections until the socket is closed.
func (e *Receiver) accept() {
	backoff := netio.NewFullJitter(5*time.Millisecond, time.Second, 2)
	for {
		conn, err := e.ln.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // such as too many open files: it passes, and turning in circles would not help
			delay := backoff.NextBackOff()
			e.cfg.Logger.Error("Cannot accept a connection", err, watermill.LogFields{
				"provider": netio.Provider, "address": e.cfg.Address, "delay": delay,
			})
			select {
			case <-time.After(delay):
			case <-e.stop:
			}
			continue
		}
		backoff.Reset()
		e.admit(conn)
	}
}

// Held is the number of unsettled messages of which this endpoint may hold the only copy: those whose publisher has not
// answered Drain.
func (e *Receiver) OnlyCopies() (n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, p := range e.publishers {
		for _, s := range p.streams {
			n += s.orphans()
		}
	}
	return n
}

// Drain tells every publisher to send nothing more, and takes no new connection. Acks still flow.
func (e *Receiver) Drain() {
	e.mu.Lock()
	first := !e.closing
	e.closing = true
	e.mu.Unlock()
	if !first {
		return
	}
	close(e.stop)
	if e.ln != nil {
		_ = e.ln.Close()
	}
	for _, c := range e.snapshot() {
		c.goaway()
	}
}

func (e *Receiver) snapshot() []*conn {
	e.mu.Lock()
	defer e.mu.Unlock()
	conns := make([]*conn, 0, len(e.conns))
	for c := range e.conns {
		conns = append(conns, c)
	}
	return conns
}

// Close drains, writes the acks that are due, and closes every connection; ctx bounds the writing. Publishers keep what
// was not handled.
func (e *Receiver) Close(ctx context.Context) error {
	close(e.abandoned) // nobody makes room any more
	e.cancel()
	e.Drain()
	defer close(e.done)
	for _, c := range e.snapshot() {
		c.shut(ctx)
	}
	e.wg.Wait()
	if e.committer != nil {
		e.committer.close()
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, t := range e.topics {
		t.Window().Close()
	}
	return nil
}
