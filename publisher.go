package buffstreams

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/buffstreams/watermill-buffstreams/internal/session"
	"github.com/buffstreams/watermill-buffstreams/outbox"
	"github.com/buffstreams/watermill-buffstreams/pool"
)

// Publisher publishes to address topics ([tcp|tls://]host:port[/name], unix:///path.sock#name), and to logical topics
// through its Resolver. It is safe for concurrent use.
type Publisher struct {
	cfg     PublisherConfig
	logger  watermill.LoggerAdapter
	manager *pool.Manager
	owned   bool // the manager is private
	plain   *plainPublisher
	courier *courier // delivers the outbox

	ctx    context.Context // ends the waits of Publish when Close has waited long enough
	cancel context.CancelFunc
	turn   atomic.Uint64             // of round robin
	recent atomic.Pointer[published] // where the last message went

	mu     sync.Mutex
	closed bool
	calls  sync.WaitGroup // Publish calls that run
	used   map[published]struct{}
	links  map[*pool.Link]bool // those that used has had
	prune  int                 // size at which used is looked through
}

// published is a place that messages went to.
type published struct {
	topic string
	link  *pool.Link
	peer  string
	name  string
}

// NewPublisher returns a Publisher. It dials when there is something to send.
func NewPublisher(config PublisherConfig, logger watermill.LoggerAdapter) (*Publisher, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	config.setDefaults()
	if logger == nil {
		logger = watermill.NopLogger{}
	}
	manager, owned, err := managerOf(config.Manager, config.ManagerConfig, logger)
	if err != nil {
		return nil, err
	}
	if config.MaxMessageSize == 0 {
		config.MaxMessageSize = pool.DefaultMaxMessageSize
		if config.Wire == WireAcked {
			config.MaxMessageSize = manager.MaxMessageSize()
		}
	}
	p := &Publisher{cfg: config, logger: logger, manager: manager, owned: owned, used: map[published]struct{}{}, links: map[*pool.Link]bool{}}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	if config.Wire == WireBuffStreams {
		p.plain = newPlainPublisher(p)
	}
	if config.Outbox != nil {
		p.courier = startCourier(p)
	}
	return p, nil
}

// managerOf returns the user's Manager or a private one.
func managerOf(m *pool.Manager, cfg pool.ManagerConfig, logger watermill.LoggerAdapter) (*pool.Manager, bool, error) {
	if m != nil {
		return m, false, nil
	}
	if cfg.Logger == nil {
		cfg.Logger = logger
	}
	m, err := pool.NewManager(cfg)
	return m, true, err
}

// Publish sends messages, in order, and returns nil when all of them reached the configured confirm level. Otherwise the
// error is a *PublishError that says which were not sent and of which it is unknown.
//
// It blocks while the send window is full or the topic does not exist at the peer yet, up to PublishTimeout.
func (p *Publisher) Publish(topic string, messages ...*message.Message) error {
	if len(messages) == 0 {
		return nil
	}
	if err := p.begin(); err != nil {
		return err
	}
	defer p.calls.Done()
	if p.plain != nil {
		return p.plain.publish(topic, messages)
	}
	if at := p.recent.Load(); at != nil && at.topic == topic {
		return p.send(*at, messages)
	}
	return p.route(topic, messages)
}

func (p *Publisher) begin() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return ErrPublisherClosed
	}
	p.calls.Add(1)
	return nil
}

var batches = sync.Pool{New: func() any { return new(session.Batch) }}

// levels maps what the user asked for to what the session waits for.
var levels = map[Confirm]session.Level{ConfirmReceived: session.Received, ConfirmHandled: session.Handled}

// send encodes the messages and hands them to the link.
func (p *Publisher) send(at published, messages []*message.Message) error {
	batch := batches.Get().(*session.Batch)
	defer func() {
		batch.Reset()
		batches.Put(batch)
	}()
	if err := p.encode(batch, at.topic, messages); err != nil {
		return &PublishError{Topic: at.topic, Peer: at.peer, NotSent: messages, Err: err}
	}
	if p.courier != nil {
		return p.store(at, batch, messages)
	}
	ctx := p.ctx
	if p.cfg.PublishContext {
		merged, cancel := context.WithCancel(messages[0].Context())
		defer cancel()
		defer context.AfterFunc(p.ctx, cancel)()
		ctx = merged
	}
	var deadline time.Time
	if p.cfg.PublishTimeout > 0 {
		deadline = time.Now().Add(p.cfg.PublishTimeout)
	}
	sent, err := at.link.Publish(ctx, at.name, batch, levels[p.cfg.Confirm], deadline)
	if err == nil {
		return nil
	}
	if p.ctx.Err() != nil || errors.Is(err, pool.ErrClosed) {
		err = ErrPublisherClosed
	}
	return &PublishError{Topic: at.topic, Peer: at.peer, NotSent: messages[sent:], Unknown: messages[:sent], Err: err}
}

// store puts the messages into the outbox.
func (p *Publisher) store(at published, batch *session.Batch, messages []*message.Message) error {
	key := outbox.Key{Destination: at.peer, Topic: at.name}
	if _, err := p.cfg.Outbox.Append(p.ctx, key, batch.Messages()...); err != nil {
		failed := &PublishError{Topic: at.topic, Peer: at.peer, NotSent: messages, Err: err}
		if unconfirmed := (*outbox.UnconfirmedError)(nil); errors.As(err, &unconfirmed) {
			failed.NotSent, failed.Unknown = nil, messages
		}
		return failed
	}
	return nil
}

// Drain waits until every message of the outbox was handled, or ctx is done; without an outbox it is Flush.
func (p *Publisher) Drain(ctx context.Context) error {
	if p.courier == nil {
		return p.Flush(ctx)
	}
	return p.cfg.Outbox.Drained(ctx)
}

// encode fills the batch, or leaves an error before anything was sent.
func (p *Publisher) encode(batch *session.Batch, topic string, messages []*message.Message) error {
	for _, msg := range messages {
		size, ok, err := batch.Append(p.cfg.MaxMessageSize, func(dst []byte) ([]byte, error) {
			return p.cfg.Marshaler.Marshal(dst, topic, msg)
		})
		if err != nil {
			return fmt.Errorf("buffstreams: cannot marshal message %q: %w", msg.UUID, err)
		}
		if !ok {
			return &TooLargeError{UUID: msg.UUID, Size: size, Limit: p.cfg.MaxMessageSize}
		}
	}
	return nil
}

// Flush waits until every message published so far was received by its subscriber's process, or ctx is done.
func (p *Publisher) Flush(ctx context.Context) error {
	if p.plain != nil {
		return p.plain.flush(ctx)
	}
	for _, at := range p.places() {
		if err := at.link.Flush(ctx, at.name); err != nil {
			return err
		}
	}
	return nil
}

func (p *Publisher) places() []published {
	p.mu.Lock()
	defer p.mu.Unlock()
	places := make([]published, 0, len(p.used))
	for at := range p.used {
		places = append(places, at)
	}
	return places
}

// Close refuses further messages and waits up to CloseTimeout until those of this publisher have reached their confirm
// level (received, for ConfirmEnqueued). What is in an Outbox it does not wait for: see Drain. It returns an *UndeliveredError with the number of those that did not.
// It may be called more than once.
func (p *Publisher) Close() error {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil
	}
	p.closed = true
	p.mu.Unlock()

	ctx, cancel := context.WithTimeout(context.Background(), p.cfg.CloseTimeout)
	defer cancel()
	defer context.AfterFunc(ctx, p.cancel)()
	p.calls.Wait() // ends in time: ctx ends what Publish waits for
	if p.courier != nil {
		p.cancel()
		p.courier.stop()
		if p.owned {
			return p.manager.Close()
		}
		return nil
	}
	err := p.Flush(ctx)
	p.cancel()
	undelivered := 0
	for _, at := range p.places() {
		undelivered += at.link.Unreceived(at.name)
	}
	for link := range p.links {
		link.OnRefused(p, nil)
	}
	if p.owned {
		err = p.manager.Close()
	}
	if undelivered > 0 {
		return &UndeliveredError{Count: undelivered}
	}
	if p.plain != nil || p.owned {
		return err
	}
	return nil
}
