package buffstreams

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/buffstreams/watermill-buffstreams/internal/acked/sender"
	"github.com/buffstreams/watermill-buffstreams/internal/hook"
	"github.com/buffstreams/watermill-buffstreams/internal/netio"
	"github.com/buffstreams/watermill-buffstreams/pool"
)

// Publisher publishes to address topics ([tcp|tls://]host:port[/name], unix:///path.sock#name), and to other topics
// where its Resolver says. All methods are safe for concurrent use.
type Publisher struct {
	cfg     PublisherConfig
	logger  watermill.LoggerAdapter
	manager *Manager
	owned   bool            // the Manager is private, and closed with the Publisher
	plain   *plainPublisher // nil on the acked wire
	relay   *outboxRelay    // nil without an outbox
	users   *outboxUsers    // of the outbox; nil without one

	ctx    context.Context // ends what Publish waits for, when Close has waited long enough
	cancel context.CancelFunc

	failures failureQueue
	dropped  atomic.Uint64 // messages, as Ephemeral is set
	stats    statsCache[PublisherStats]
	drops    netio.Quiet
	waits    netio.QuietBy // by topic: what sayWait says
	lookups  netio.QuietBy // by topic and error: those that have failed

	storing    atomic.Pointer[storing] // the calls that an outbox stores now; nil: there was none yet
	storeWaits netio.Quiet             // what sayStoring says

	closed   atomic.Bool
	done     chan struct{}              // closed at the end of Close
	closeErr error                      // of Close, once done is closed
	idle     chan struct{}              // receives when a topic has no more calls and the Publisher is closed
	last     atomic.Pointer[topicState] // the state that was looked up last

	changing sync.Mutex // held while a route changes; taken before mu

	mu      sync.Mutex // guards the fields below, and those of a topicState that say so
	topics  map[string]*topicState
	routed  map[*topicState]struct{} // topics whose addresses can change, or have alternatives
	senders map[*sender.Sender]int   // the targets that have it
	prune   int                      // number of topics at which they are looked through
}

// NewPublisher returns a Publisher. It dials when there is something to send.
func NewPublisher(config PublisherConfig, logger watermill.LoggerAdapter) (*Publisher, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	config.setDefaults()
	logger = hook.Logger(logger)
	p := &Publisher{
		logger: logger, idle: make(chan struct{}, 1), done: make(chan struct{}), topics: map[string]*topicState{}, senders: map[*sender.Sender]int{},
		routed:   map[*topicState]struct{}{},
		failures: failureQueue{hook: config.OnFailure, logger: logger},
	}
	if config.OnFailure != nil && config.ManagerConfig.OnFailure == nil {
		config.ManagerConfig.OnFailure = p.failures.addHeld
	}
	var err error
	if p.manager, p.owned, err = managerOf(config.Manager, config.ManagerConfig, logger); err != nil {
		return nil, err
	}
	if limit := p.manager.cfg.Acked.MaxMessageSize; config.Wire == WireAcked && config.MaxMessageSize > limit {
		err := configError("PublisherConfig.MaxMessageSize", "%d is above AckedConfig.MaxMessageSize %d of its Manager, which no "+
			"message may exceed", config.MaxMessageSize, limit)
		if p.owned {
			err = errors.Join(err, p.manager.Close())
		}
		return nil, err
	}
	if config.MaxMessageSize == 0 {
		config.MaxMessageSize = pool.DefaultMaxMessageSize
		if config.Wire == WireAcked {
			config.MaxMessageSize = p.manager.cfg.Acked.MaxMessageSize
		}
	}
	if config.Outbox != nil {
		p.users = joinOutboxUsers(p, config.Outbox)
		config.Outbox = &guardedOutbox{user: config.Outbox, logger: logger}
	}
	p.cfg = config
	p.ctx, p.cancel = context.WithCancel(context.Background())
	if config.Wire == WireBuffStreams {
		p.plain = newPlainPublisher(p)
	}
	if config.Outbox != nil {
		p.relay = newOutboxRelay(p)
		p.relay.start()
	}
	return p, nil
}

// managerOf returns the user's Manager or a private one.
func managerOf(m *Manager, cfg ManagerConfig, logger watermill.LoggerAdapter) (manager *Manager, private bool, err error) {
	if m != nil {
		return m, false, nil
	}
	if cfg.Logger == nil {
		cfg.Logger = logger
	}
	m, err = NewManager(cfg)
	return m, true, err
}

// Publish sends messages, in order, and returns nil when all of them reached the configured confirm level. Otherwise
// the error is a *PublishError that says which were not sent and of which it is unknown, or ErrPublisherClosed.
//
// It blocks while the send window is full or the topic does not exist at the peer yet, up to PublishTimeout. The
// messages may be changed when it has returned.
func (p *Publisher) Publish(topic string, messages ...*message.Message) error {
	if len(messages) == 0 {
		return nil
	}
	err := p.publish(topic, messages)
	if p.cfg.TraceMessages {
		p.trace(topic, messages, err)
	}
	return err
}

// publish is Publish for at least one message.
func (p *Publisher) publish(topic string, messages []*message.Message) error {
	s, err := p.begin(topic)
	if err != nil {
		return err
	}
	defer p.end(s)
	if p.cfg.PublishContext && messages[0] != nil && messages[0].Context().Err() != nil {
		return &PublishError{Topic: topic, NotSent: messages, Err: messages[0].Context().Err()}
	}
	if p.plain != nil {
		return p.plain.publish(s, messages)
	}
	if r := s.resolved.Load(); r != nil {
		if ok, err := p.sendDirect(s, r, messages, p.cfg.PublishTimeout); ok {
			return err
		}
	}
	w := p.newCallWait(s, messages[0])
	defer w.end()
	r, err := p.resolve(w, s)
	if err != nil {
		return &PublishError{Topic: topic, NotSent: messages, Err: err}
	}
	return p.spread(w, s, r, messages)
}

// begin begins a Publish call and returns the topic's state. Most publishers have one topic, and find it without the
// mutex.
func (p *Publisher) begin(topic string) (*topicState, error) {
	for {
		s := p.last.Load()
		if s == nil || s.topic != topic {
			s = p.state(topic)
		}
		switch {
		case !s.enter(): // it is being forgotten
			p.last.CompareAndSwap(s, nil)
		case p.closed.Load(): // Close looks at the state after it has closed
			p.end(s)
			return nil, ErrPublisherClosed
		default:
			return s, nil
		}
	}
}

// end ends what begin began.
func (p *Publisher) end(s *topicState) {
	if s.calls.Add(-1) == 0 && p.closed.Load() {
		select {
		case p.idle <- struct{}{}:
		default:
		}
	}
}

// Drain waits until every message published so far is settled: handled by every group, or given to OnFailure. With an
// Outbox it waits for all that the Outbox holds. On the plain wire it is Flush. The only errors are that ctx is done
// first, with the reason why it takes so long where that is known, that the Publisher or its Manager is closed, and an
// *UndeliveredError: so many messages were refused that OnFailure, which is slow, was not given all.
func (p *Publisher) Drain(ctx context.Context) error {
	switch {
	case p.plain != nil:
		return p.plain.flush(ctx)
	case p.relay != nil:
		return p.drainOutbox(ctx)
	}
	if err := p.awaitAll(ctx, stream.Drain); err != nil {
		return err
	}
	if p.closed.Load() || p.manager.isClosed() { // what is left is with its receivers, or in the error of Close
		return p.closedError()
	}
	p.reportRefused()
	return p.failures.await(ctx, "PublisherConfig.OnFailure")
}

// drainOutbox is Drain with an Outbox, which nothing delivers for this Publisher once it or its Manager is closed.
func (p *Publisher) drainOutbox(ctx context.Context) error {
	delivered, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(p.ctx, cancel)()
	defer context.AfterFunc(p.manager.ended, cancel)()
	err := p.cfg.Outbox.Drain(delivered)
	if err != nil && delivered.Err() != nil && ctx.Err() == nil {
		return p.closedError()
	}
	return err
}

// closedError says what was closed.
func (p *Publisher) closedError() error {
	if p.closed.Load() {
		return ErrPublisherClosed
	}
	return ErrManagerClosed
}

// Flush waits until every message published so far is held by its subscriber's process, or ctx is done. With an Outbox
// it is Drain. On the plain wire it waits until the kernel has taken everything. Once the Publisher or its Manager is
// closed it says that: what was not held by then is in the error of that Close.
func (p *Publisher) Flush(ctx context.Context) error {
	if p.plain != nil || p.relay != nil {
		return p.Drain(ctx)
	}
	if p.closed.Load() || p.manager.isClosed() {
		return p.closedError()
	}
	return p.awaitAll(ctx, stream.Flush)
}

// reportRefused returns when the failures of every message that a peer is known to refuse are queued for OnFailure.
func (p *Publisher) reportRefused() {
	for _, s := range p.allSenders() {
		s.ReportRefused()
	}
}

// awaitAll waits for every target to which something may be on its way. One that is refused keeps none of the others
// from being waited for.
func (p *Publisher) awaitAll(ctx context.Context, wait func(stream, context.Context) error) error {
	var errs []error
	for _, f := range p.busy() {
		errs = append(errs, wait(f.stream, ctx))
	}
	return errors.Join(errs...)
}

// Close refuses further messages and waits up to CloseTimeout until those of this Publisher have reached their confirm
// level (received, for ConfirmEnqueued). It does not wait for what is in an Outbox: see Drain. It returns an
// *UndeliveredError with the number of messages that did not. Later and concurrent calls wait for the first and return
// the same.
func (p *Publisher) Close() error {
	if p.closed.Swap(true) {
		<-p.done
		return p.closeErr
	}
	p.closeErr = p.shutDown()
	close(p.done)
	return p.closeErr
}

// shutDown is Close, once.
func (p *Publisher) shutDown() error {
	ctx, cancel := context.WithTimeout(context.Background(), p.cfg.CloseTimeout)
	defer cancel()
	defer context.AfterFunc(ctx, p.cancel)()
	last, stop := withGrace(ctx, lastGrace)
	defer stop()
	err := p.awaitCalls(ctx)
	switch {
	case p.relay != nil: // the outbox keeps what is not delivered
		p.cancel()
		err = errors.Join(err, p.relay.stop(ctx))
		p.users.leave(p)
	case p.plain != nil:
		err = errors.Join(err, p.plain.flush(ctx))
	case !p.owned:
		err = errors.Join(err, p.handOver(ctx))
	}
	if p.owned {
		err = errors.Join(err, p.manager.closeWithin(ctx))
	}
	p.cancel()
	p.leaveAll()
	if late := p.failures.awaitUntil(last, "PublisherConfig.OnFailure"); late != nil {
		return errors.Join(err, late)
	}
	return err
}

// handOver leaves to a Manager that lives on what a peer has received. It waits until that is everything.
func (p *Publisher) handOver(ctx context.Context) error {
	left, asked := &UndeliveredError{}, map[stream]bool{}
	for more := true; more; { // while one is waited for, another can get a part of what it holds
		more = false
		for _, f := range p.busy() {
			if !asked[f.stream] {
				asked[f.stream], more = true, true
				left.add(f.name, f.peer(), f.stream.AwaitReceived(ctx)) // other publishers of the Manager may go on with it
			}
		}
	}
	return left.orNil()
}

// leaveAll gives up every target. What they hold is the Manager's. The Publisher must be closed, and have no calls.
func (p *Publisher) leaveAll() {
	p.manager.leaveRouting(p)
	p.mu.Lock()
	var targets []*target
	var flows []*routedStream
	var left []leftBehind
	for _, s := range p.topics {
		targets = append(targets, s.allLocked()...)
		flows = append(flows, s.slotFlowsLocked()...)
		left = append(left, s.leavesLocked())
	}
	p.mu.Unlock()
	p.manager.keep(left)
	for _, f := range flows {
		p.endFlow(f)
	}
	p.leave(targets)
}
