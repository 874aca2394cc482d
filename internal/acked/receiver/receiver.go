// Package receiver is the receiving half of the acked protocol. A message comes from a connection (conn.go) into its
// stream (stream.go), through the session, into the log of its topic (package dispatch). What a consumer has settled
// goes back through write.go onto the connection, with a dedupe store by way of dedupe.go.
package receiver

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill"

	"github.com/buffstreams/watermill-buffstreams/framing"
	"github.com/buffstreams/watermill-buffstreams/hooks"
	"github.com/buffstreams/watermill-buffstreams/internal/dispatch"
	"github.com/buffstreams/watermill-buffstreams/internal/flow"
	"github.com/buffstreams/watermill-buffstreams/internal/flush"
	"github.com/buffstreams/watermill-buffstreams/internal/hook"
	"github.com/buffstreams/watermill-buffstreams/internal/netio"
	"github.com/buffstreams/watermill-buffstreams/internal/session"
	"github.com/buffstreams/watermill-buffstreams/store"
)

// ErrClosed means that the Receiver was closed.
var ErrClosed = errors.New("buffstreams: the listener is closed")

// Config configures a Receiver. Every field is needed but TLS, Groups, Dedupe, Workers, Hooks, Authenticate and
// Authorize.
type Config struct {
	Address string      // for logs
	TLS     *tls.Config // nil: plaintext, with checksums

	MaxMessageSize                                       int // of one encoded message, in bytes
	WindowMessages, WindowBytes                          int // of each topic
	MaxConnections, MaxTopics, MaxPublishers, MaxStreams int
	MaxConnectionsPerHost                                int // negative: no bound
	HandshakeTimeout, WriteTimeout                       time.Duration
	DeadAfter                                            time.Duration // of silence
	ForgetAfter                                          time.Duration // for an ephemeral topic that ended
	ForgetIdleAfter                                      time.Duration // for the streams of an absent publisher; 0: never

	Authenticate func(context.Context, Peer) (principal string, err error)
	Authorize    func(context.Context, Access) error
	Groups       map[string][]string // declared, by topic
	Dedupe       store.DedupeStore

	Budget  *flow.Budget
	Workers *flush.Workers // nil: a new goroutine for each flush
	Hooks   *hook.Set      // nil: none
	Logger  watermill.LoggerAdapter
}

func (c *Config) window() flow.Amount {
	return flow.Amount{Messages: c.WindowMessages, Bytes: c.WindowBytes}
}

// Receiver is the receiving side at one address: it accepts connections, and keeps the topics that publishers send to
// and what it remembers of their streams. It is safe for concurrent use.
//
// Locks are taken in this order: the Receiver's, a stream's, then a connection's or a topic's.
type Receiver struct {
	cfg           Config
	ln            net.Listener
	wg            sync.WaitGroup // accept and the connections
	codec         framing.Codec  // of every frame after the greeting
	guard         Guard
	instance      [16]byte        // random
	committer     *committer      // nil without a DedupeStore
	stopAccepting chan struct{}   // closed by Drain
	ctx           context.Context // of the user's hooks; ends when Close begins
	cancel        context.CancelFunc
	leaveStore    context.CancelFunc // ends what is waited for in the DedupeStore
	done          chan struct{}      // closed by EndMembers
	endMembers    sync.Once
	counters      counters
	unheardBytes  atomic.Int64  // see maxUnheard
	ends          netio.QuietBy // connections, by host
	failures      netio.Quiet   // of Accept

	// mu guards the fields below. No user code is called under it.
	mu               sync.Mutex
	topics           map[string]*dispatch.Topic
	publishers       map[[16]byte]*publisher
	streams          map[*dispatch.Topic]map[*stream]struct{}
	streamCount      int
	recalls          map[store.StreamID]*recall // under way
	gone             tombstones
	unheard          []func()          // to call; see tellUnheard
	forgotHooks      []hooks.Forgotten // to call; see noteForgotten
	forgotten        int               // publishers that returned and were not known, since the last log line about them
	forgottenLogged  time.Time
	noEvictionBefore time.Time   // nothing can be forgotten before
	idleTimer        *time.Timer // see forgetIdle; nil: it does not run
	conns            map[*conn]struct{}
	counts           connCounts
	draining         bool
	held             bool // new topics give no credit

	mostTopics, mostStreams int // for buffers.Shrink
}

// New returns a Receiver that accepts connections from ln, and owns it.
func New(cfg Config, ln net.Listener) (*Receiver, error) {
	codec, err := session.NewCodec(cfg.MaxMessageSize)
	if err != nil {
		return nil, errors.Join(err, ln.Close())
	}
	r := newReceiver(cfg)
	r.ln, r.codec = ln, codec
	if cfg.Dedupe != nil {
		r.committer = newCommitter(r.cfg.Dedupe, cfg.Logger)
	}
	r.wg.Go(r.accept) // ends when Drain closes ln; Close waits for it
	return r, nil
}

func newReceiver(cfg Config) *Receiver {
	ctx, cancel := context.WithCancel(context.Background())
	storeCtx, leaveStore := context.WithCancel(context.Background())
	if cfg.Dedupe != nil {
		cfg.Dedupe = guardedStore{cfg.Dedupe, storeCtx}
	}
	r := &Receiver{
		cfg: cfg, guard: NewGuard(cfg), ctx: ctx, cancel: cancel, leaveStore: leaveStore,
		stopAccepting: make(chan struct{}), done: make(chan struct{}),
		topics:     map[string]*dispatch.Topic{},
		publishers: map[[16]byte]*publisher{},
		streams:    map[*dispatch.Topic]map[*stream]struct{}{},
		recalls:    map[store.StreamID]*recall{},
		conns:      map[*conn]struct{}{},
		counts:     connCounts{perHost: map[string]int{}},
	}
	r.gone.forgotten = r.removeEndedLocked
	_, _ = rand.Read(r.instance[:]) // never fails: see crypto/rand
	return r
}

// Addr is the address of the listening socket.
func (r *Receiver) Addr() net.Addr { return r.ln.Addr() }

// Done is closed when Close returns: nothing arrives any more.
func (r *Receiver) Done() <-chan struct{} { return r.done }

// Topic returns the topic of a name, and makes it if there is none.
func (r *Receiver) Topic(name string) *dispatch.Topic {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.gone.remove(name)
	if t := r.topics[name]; t != nil && t.Ended() { // just now
		r.deleteTopicLocked(name)
	}
	return r.topicLocked(name)
}

// Hold keeps topics that have given no credit yet from giving any, until it is called with false.
func (r *Receiver) Hold(held bool) {
	for _, t := range r.setHeld(held) {
		t.Hold(held)
	}
}

func (r *Receiver) setHeld(held bool) []*dispatch.Topic {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.held = held
	return slices.Collect(maps.Values(r.topics))
}

// EphemeralTopic returns a topic that ends with its last member: its publishers are notified, and so is every publisher
// that opens it within ForgetAfter; then it is forgotten.
func (r *Receiver) EphemeralTopic(name string) *dispatch.Topic {
	t := r.Topic(name)
	t.MakeEphemeral(func(dropped int) { r.topicEnded(t, dropped) })
	return t
}

func (r *Receiver) topicLocked(name string) *dispatch.Topic {
	t := r.topics[name]
	if t == nil {
		w := flow.NewWindow(r.cfg.window(), r.cfg.Budget)
		t = dispatch.NewTopic(name, w, session.EncodedSize, r.cfg.Groups[name]...)
		if r.cfg.Dedupe != nil { // then what was acked and is not committed would come twice after a crash
			t.AckImmediately()
		}
		t.Hold(r.held)
		t.OnUnused(func() { r.retire(t) })
		LogBehind(t, r.cfg.Address, r.cfg.Logger)
		r.topics[name] = t
	}
	return t
}

// accept admits connections until Drain closes the socket.
func (r *Receiver) accept() {
	backoff := netio.NewFullJitter(5*time.Millisecond, time.Second, 2)
	for {
		conn, err := r.ln.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // such as too many open files, which passes
			delay := backoff.NextBackOff()
			r.logAccept(err, delay)
			select {
			case <-time.After(delay):
			case <-r.stopAccepting:
			}
			continue
		}
		backoff.Reset()
		r.admit(conn)
	}
}

// OnlyCopies is the number of unsettled messages of which this Receiver may hold the only copy, as their publisher has
// not answered Drain, and that have subscriptions to handle them.
func (r *Receiver) OnlyCopies() (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range r.publishers {
		for _, s := range p.streams {
			n += s.onlyCopies()
		}
	}
	return n
}

// Drain asks every publisher to send nothing more, and accepts no new connection. Acks still flow. It does not block,
// and does nothing when it is called again.
func (r *Receiver) Drain() {
	r.mu.Lock()
	first := !r.draining
	r.draining = true
	r.stopIdleTimerLocked()
	r.mu.Unlock()
	if !first {
		return
	}
	close(r.stopAccepting)
	if r.ln != nil {
		_ = r.ln.Close()
	}
	for _, c := range r.connections() {
		c.goaway()
	}
	for _, s := range r.allStreams() {
		s.updateKept()
	}
}

// AwaitAnswers waits until every peer has answered Drain or is gone, or ctx is done. A peer that answers keeps what is
// not settled.
func (r *Receiver) AwaitAnswers(ctx context.Context) {
	for _, c := range r.connections() {
		select {
		case <-c.answered:
		case <-c.ended:
		case <-ctx.Done():
			return
		}
	}
}

// Unkept returns, by topic, the unsettled messages that no member of a group has and no connected publisher keeps.
func (r *Receiver) Unkept() map[string][][]byte {
	unkept := map[string][][]byte{}
	for _, t := range r.allTopics() {
		if messages := t.Unkept(); len(messages) > 0 {
			unkept[t.Name()] = messages
		}
	}
	return unkept
}

func (r *Receiver) allStreams() (all []*stream) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range r.publishers {
		for _, s := range p.streams {
			all = append(all, s)
		}
	}
	return all
}

func (r *Receiver) connections() []*conn {
	r.mu.Lock()
	defer r.mu.Unlock()
	conns := make([]*conn, 0, len(r.conns))
	for c := range r.conns {
		conns = append(conns, c)
	}
	return conns
}

// EndMembers closes Done, upon which the subscriptions end. Their acks still flow.
func (r *Receiver) EndMembers() { r.endMembers.Do(func() { close(r.done) }) }

// HasMembers reports whether a topic has a subscription.
func (r *Receiver) HasMembers() bool {
	return slices.ContainsFunc(r.allTopics(), (*dispatch.Topic).HasMembers)
}

// Knows reports whether the Receiver remembers a publisher.
func (r *Receiver) Knows(publisher [16]byte) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.publishers[publisher] != nil
}

func (r *Receiver) allTopics() []*dispatch.Topic {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Collect(maps.Values(r.topics))
}

// Close drains, closes Done, writes the acks that are due, waits a moment for the peers to have read them, closes every
// connection and waits for its goroutines; ctx bounds the writing. Publishers keep what was not handled. It is called
// once.
func (r *Receiver) Close(ctx context.Context) error {
	r.cancel()
	r.Drain()
	r.settleUnheard()
	defer r.EndMembers()
	defer r.leaveStore()
	defer context.AfterFunc(ctx, r.leaveStore)()
	for _, c := range r.connections() {
		r.wg.Go(func() { c.flushAndClose(ctx) }) // ends soon after ctx at the latest
	}
	r.wg.Wait()
	if r.committer != nil {
		r.committer.close()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, t := range r.topics {
		t.Close()
	}
	return nil
}
