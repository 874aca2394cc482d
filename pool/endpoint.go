package pool

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
	"github.com/buffstreams/watermill-buffstreams/internal/session"
)

// endpointConfig sets up an Endpoint.
type endpointConfig struct {
	AckedConfig
	target Target
	tls    *tls.Config // nil: plaintext with checksums
	budget *flow.Budget
	crew   *crew
	logger watermill.LoggerAdapter
}

func (c *endpointConfig) window() flow.Amount {
	return flow.Amount{Messages: c.WindowMessages, Bytes: c.WindowBytes}
}

// Endpoint is the receiving side at one address: it accepts connections, keeps the topics that publishers send to, and
// what it remembers of their streams. It is safe for concurrent use.
//
// mu guards the maps and closing. Locks are taken in this order: the Endpoint's, a stream's, then a connection's or a
// topic's.
type Endpoint struct {
	cfg       endpointConfig
	ln        net.Listener
	wg        sync.WaitGroup // accept loop and connections
	codec     framing.Codec  // of every frame after the greeting
	saver     *saver         // nil without a DedupeStore
	stop      chan struct{}  // closed by Drain
	abandoned chan struct{}  // closed when Close begins
	ctx       context.Context
	cancel    context.CancelFunc // called when Close begins: the hooks of the user end
	guard     guard
	done      chan struct{} // closed when Close is through
	bare      *Listener     // instead of ln, for plain peers
	source    *plainSource  // of bare

	mu            sync.Mutex
	topics        map[string]*dispatch.Topic
	publishers    map[[16]byte]*publisher
	streams       map[*dispatch.Topic]map[*stream]struct{} // of each topic
	count         int                                      // of streams
	gone          tombstones
	forgotten     int // publishers that returned and were not known, since that was said
	forgottenSaid time.Time
	fullUntil     time.Time // nothing can be forgotten before
	conns         map[*endpointConn]struct{}
	crowd         crowd // of conns
	closing       bool
}

// newEndpoint serves a listening socket, which is its own from now on.
func newEndpoint(cfg endpointConfig, ln net.Listener) (*Endpoint, error) {
	codec, err := ackedCodec(cfg.MaxMessageSize)
	if err != nil {
		return nil, errors.Join(err, ln.Close())
	}
	e := emptyEndpoint(cfg)
	e.ln, e.codec = ln, codec
	if cfg.Dedupe != nil {
		e.saver = newSaver(cfg.Dedupe, cfg.logger)
	}
	e.wg.Go(e.accept) // ends when Drain closes the socket
	return e, nil
}

func emptyEndpoint(cfg endpointConfig) *Endpoint {
	ctx, cancel := context.WithCancel(context.Background())
	return &Endpoint{
		ctx: ctx, cancel: cancel, guard: newGuard(&cfg.AckedConfig, cfg.target, cfg.logger),
		crowd: crowd{perHost: map[string]int{}},
		cfg:   cfg, stop: make(chan struct{}), abandoned: make(chan struct{}), done: make(chan struct{}),
		topics:     map[string]*dispatch.Topic{},
		publishers: map[[16]byte]*publisher{},
		streams:    map[*dispatch.Topic]map[*stream]struct{}{},
		conns:      map[*endpointConn]struct{}{},
	}
}

// Addr is the address it listens at.
func (e *Endpoint) Addr() net.Addr {
	if e.bare != nil {
		return e.bare.Addr()
	}
	return e.ln.Addr()
}

// Topic returns a topic, and makes it where there is none.
func (e *Endpoint) Topic(name string) *dispatch.Topic {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.gone.remove(name)
	return e.topic(name)
}

// EphemeralTopic returns a topic that ends with its last member: its publishers are told, and for a while everybody who
// opens it later; then it is forgotten.
func (e *Endpoint) EphemeralTopic(name string) *dispatch.Topic {
	t := e.Topic(name)
	t.Ephemeral(func(dropped int) { e.end(t, dropped) })
	return t
}

func (e *Endpoint) topic(name string) *dispatch.Topic {
	t := e.topics[name]
	if t == nil {
		w := flow.NewWindow(e.cfg.window(), e.cfg.budget)
		t = dispatch.NewTopic(name, w, e.size, e.cfg.Groups[name]...)
		if e.cfg.Dedupe != nil { // it bounds what comes twice by what is in flight
			t.Prompt()
		}
		e.topics[name] = t
	}
	return t
}

// Done is closed when the endpoint is closed: nothing arrives any more.
func (e *Endpoint) Done() <-chan struct{} { return e.done }

// size is what a message of n bytes takes of a window.
func (e *Endpoint) size(n int) int { return session.EncodedSize(n) }

// accept takes connections until the socket is closed.
func (e *Endpoint) accept() {
	backoff := newFullJitter(5*time.Millisecond, time.Second, 2)
	for {
		conn, err := e.ln.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // such as too many open files: it passes, and turning in circles would not help
			delay := backoff.NextBackOff()
			e.cfg.logger.Error("Cannot accept a connection", err, watermill.LogFields{
				"provider": provider, "address": e.cfg.target.Address, "delay": delay,
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
func (e *Endpoint) Held() (n int) {
	if e.source != nil {
		return int(e.source.held.Load())
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, p := range e.publishers {
		for _, s := range p.streams {
			n += s.orphans()
		}
	}
	return n
}

// Drain tells every publisher to send nothing more, and takes no new connection. Acks still flow. Plain peers cannot be
// told: what they have sent by then is taken, for which consumers may have to make room, and their connections are closed.
func (e *Endpoint) Drain() {
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
	if e.bare != nil {
		if err := e.bare.Close(); err != nil {
			e.cfg.logger.Error("What plain peers were sending was cut", err, watermill.LogFields{
				"provider": provider, "address": e.cfg.target.Address,
			})
		}
	}
	for _, c := range e.connections() {
		c.goaway()
	}
}

func (e *Endpoint) connections() []*endpointConn {
	e.mu.Lock()
	defer e.mu.Unlock()
	conns := make([]*endpointConn, 0, len(e.conns))
	for c := range e.conns {
		conns = append(conns, c)
	}
	return conns
}

// Close drains, writes the acks that are due, and closes every connection; ctx bounds the writing. Publishers keep what
// was not handled.
func (e *Endpoint) Close(ctx context.Context) error {
	close(e.abandoned) // nobody makes room any more
	e.cancel()
	e.Drain()
	defer close(e.done)
	for _, c := range e.connections() {
		c.shut(ctx)
	}
	e.wg.Wait()
	if e.saver != nil {
		e.saver.close()
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, t := range e.topics {
		t.Window().Close()
	}
	return nil
}
