package buffstreams

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/buffstreams/watermill-buffstreams/internal/acked/sender"
	"github.com/buffstreams/watermill-buffstreams/internal/session"
	"github.com/buffstreams/watermill-buffstreams/pool"
	"github.com/buffstreams/watermill-buffstreams/store"
)

// Publisher publishes to address topics ([tcp|tls://]host:port[/name], unix:///path.sock#name), and to logical topics
// through its Resolver. It is safe for concurrent use.
type Publisher struct {
	cfg     PublisherConfig
	logger  watermill.LoggerAdapter
	manager *Manager
	owned   bool // the manager is private
	plain   *plainPublisher
	courier *courier // delivers the outbox

	ctx    context.Context // ends the waits of Publish when Close has waited long enough
	cancel context.CancelFunc
	turn   atomic.Uint64 // of round robin

	closed atomic.Bool
	idle   chan struct{}        // receives when a road has no more calls and the Publisher is closed
	last   atomic.Pointer[road] // the road that was looked up last

	mu    sync.Mutex
	roads map[string]*road        // by topic
	links map[*sender.Sender]bool // that any road has had
	prune int                     // number of roads at which they are looked through
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
			config.MaxMessageSize = manager.cfg.Acked.MaxMessageSize
		}
	}
	p := &Publisher{cfg: config, logger: logger, manager: manager, owned: owned, idle: make(chan struct{}, 1), roads: map[string]*road{}, links: map[*sender.Sender]bool{}}
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
func managerOf(m *Manager, cfg ManagerConfig, logger watermill.LoggerAdapter) (*Manager, bool, error) {
	if m != nil {
		return m, false, nil
	}
	if cfg.Logger == nil {
		cfg.Logger = logger
	}
	m, err := NewManager(cfg)
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
	r, err := p.begin(topic)
	if err != nil {
		return err
	}
	defer p.end(r)
	if p.plain != nil {
		return p.plain.publish(topic, messages)
	}
	w, err := p.way(r, topic)
	if err != nil {
		return &PublishError{Topic: topic, NotSent: messages, Err: err}
	}
	return p.spread(w, messages)
}

// begin begins a Publish call, on the topic's road. Most publishers have one topic, and find it without the mutex.
func (p *Publisher) begin(topic string) (*road, error) {
	for {
		r := p.last.Load()
		if r == nil || r.topic != topic {
			r = p.road(topic)
		}
		switch {
		case !r.enter(): // it is being forgotten
			p.last.CompareAndSwap(r, nil)
		case p.closed.Load(): // Close looks at the road after it has closed
			p.end(r)
			return nil, ErrPublisherClosed
		default:
			return r, nil
		}
	}
}

func (p *Publisher) end(r *road) {
	if r.calls.Add(-1) == 0 && p.closed.Load() {
		select {
		case p.idle <- struct{}{}:
		default:
		}
	}
}

// awaitCalls waits for the end of all Publish calls. The Publisher is closed.
func (p *Publisher) awaitCalls() {
	for p.calling() {
		<-p.idle
	}
}

func (p *Publisher) calling() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range p.roads {
		if r.calls.Load() > 0 {
			return true
		}
	}
	return false
}

var batches = sync.Pool{New: func() any { return new(session.Batch) }}

// level is what the session waits for; 0 for nothing.
func (c Confirm) level() session.Level {
	switch c {
	case ConfirmReceived:
		return session.Received
	case ConfirmHandled:
		return session.Handled
	}
	return 0
}

// send encodes the messages and hands them to the link.
func (p *Publisher) send(at *place, messages []*message.Message) error {
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
	sent, err := at.link.Publish(ctx, at.name, batch, p.cfg.Confirm.level(), p.cfg.PublishTimeout)
	if err == nil {
		return nil
	}
	if p.ctx.Err() != nil || errors.Is(err, sender.ErrClosed) {
		err = ErrPublisherClosed
	}
	return &PublishError{Topic: at.topic, Peer: at.peer, NotSent: messages[sent:], Unknown: messages[:sent], Err: err}
}

// store puts the messages into the outbox.
func (p *Publisher) store(at *place, batch *session.Batch, messages []*message.Message) error {
	key := store.Key{Destination: at.peer, Topic: at.name}
	if _, err := p.cfg.Outbox.Append(p.ctx, key, batch.Messages()...); err != nil {
		failed := &PublishError{Topic: at.topic, Peer: at.peer, NotSent: messages, Err: err}
		// What a failed write left on the disk is only seen when the outbox is opened anew.
		if unconfirmed := (*store.UnconfirmedError)(nil); errors.As(err, &unconfirmed) || errors.Is(err, store.ErrFailed) {
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
		full, err := p.cfg.Marshaler.Marshal(batch.Begin(len(msg.Payload)), topic, msg)
		if err != nil {
			return fmt.Errorf("buffstreams: cannot marshal message %q: %w", msg.UUID, err)
		}
		if size, ok := batch.End(full, p.cfg.MaxMessageSize); !ok {
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
	var errs []error
	for _, at := range p.busy() { // one that is refused must not keep the others from being flushed
		errs = append(errs, at.link.Flush(ctx, at.name))
	}
	return errors.Join(errs...)
}

// Close refuses further messages and waits up to CloseTimeout until those of this publisher have reached their confirm
// level (received, for ConfirmEnqueued). What is in an Outbox it does not wait for: see Drain. It returns an *UndeliveredError with the number of those that did not.
// It may be called more than once.
func (p *Publisher) Close() error {
	if !p.closed.CompareAndSwap(false, true) {
		return nil
	}

	ctx, cancel := context.WithTimeout(context.Background(), p.cfg.CloseTimeout)
	defer cancel()
	defer context.AfterFunc(ctx, p.cancel)()
	p.awaitCalls() // ends in time: ctx ends what Publish waits for
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
	for _, at := range p.busy() {
		undelivered += at.unreceived()
	}
	for link := range p.links { // nobody publishes any more
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
