package buffstreams

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/buffstreams/watermill-buffstreams/internal/dispatch"
	"github.com/buffstreams/watermill-buffstreams/internal/netio"
)

// subscription is one Subscribe call. Its pump emits the topic's messages, up to MaxInFlight at a time, and settles
// those that are acked promptly. The others have a watcher each, so that they hold up none.
type subscription struct {
	subscriber *Subscriber
	topic      string
	listener   listener
	wireTopic  string // its name on the wire
	member     *dispatch.Member
	out        chan *message.Message

	wake       chan struct{}   // has an element when the pump may have something to do
	ctxDone    <-chan struct{} // of Subscribe's context; close follows
	closing    chan struct{}   // closed by close: no further message is emitted but those of drain
	closeOnce  sync.Once
	deadline   time.Time       // of handlers and callbacks; set by close
	base       context.Context // parent of the messages' contexts
	cancelBase context.CancelFunc
	pumpDone   chan struct{}  // closed when the pump's goroutine ends
	watchers   sync.WaitGroup // of slow and nacked messages, and of failures
	watched    atomic.Int32   // messages that have a watcher, fail, or are in redeliveries
	halted     chan struct{}  // closed when the pump stops
	drained    atomic.Bool    // it was cancelled, and nothing is left to be handled
	done       chan struct{}  // closed at the end of finish
	late       error          // names the callbacks that had not returned then

	traces   bool // each message has lines of the log
	trusted  bool // the Unmarshaler is one of this package: it neither panics nor blocks
	durable  bool // to settle a message calls the DedupeStore
	drains   bool // it answers for what no sender keeps; not where the topic ends with it
	code     userCode
	handling handling
	recalls  changes // of what was taken: see recall

	redelivered, deadLettered atomic.Uint64 // messages
	deadLetters               netio.Quiet   // what could not be published

	mu           sync.Mutex          // guards redeliveries and stopped
	redeliveries []dispatch.Delivery // for the pump to emit again
	stopped      bool                // the pump takes no further redelivery
}

// newSubscription joins the topic and emits its messages until close is called, ctx is done, or the listener is. It
// returns nil if the topic has ended.
func newSubscription(ctx context.Context, s *Subscriber, topic string, t *dispatch.Topic, l listener) *subscription {
	sub := &subscription{
		subscriber: s, topic: topic, wireTopic: t.Name(), listener: l, halted: make(chan struct{}),
		out: make(chan *message.Message, s.cfg.MaxInFlight), ctxDone: ctx.Done(),
		wake: make(chan struct{}, 1), closing: make(chan struct{}), done: make(chan struct{}), pumpDone: make(chan struct{}),
		handling: handling{timeout: s.cfg.AckWaitTimeout}, traces: s.cfg.TraceMessages,
	}
	switch s.cfg.Unmarshaler.(type) {
	case EnvelopeMarshaler, RawMarshaler:
		sub.trusted = true
	}
	// Handlers may go on for CloseTimeout after ctx is done.
	sub.base, sub.cancelBase = context.WithCancel(context.WithoutCancel(ctx))
	if sub.member = t.Join(s.cfg.ConsumerGroup, sub.notify); sub.member == nil {
		sub.cancelBase()
		return nil
	}
	sub.drains = !s.cfg.Ephemeral && t.Outlast() || !t.IsEphemeral()
	sub.member.WhenEnding(sub.ends)
	sub.durable = sub.member.AcksImmediately()
	s.manager.subscriptions.add(sub)
	p := &pump{subscription: sub, ackImmediately: s.cfg.Key != nil || sub.durable}
	go p.run() // Ends after close; finish waits for it, unless a callback does not return.
	stop := context.AfterFunc(ctx, sub.closeInTime)
	go p.finish(stop) // Ends soon after the deadline of close at the latest; Close waits for done.
	return sub
}

// channel is where the messages come out; nil for no subscription.
func (s *subscription) channel() <-chan *message.Message {
	if s == nil {
		return nil
	}
	return s.out
}

// notify wakes the pump. It does not block.
func (s *subscription) notify() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// close begins the end of the subscription; done is closed when it has ended, which is soon after the deadline at the
// latest.
func (s *subscription) close(deadline time.Time) {
	s.beginClose(deadline)
	s.notify()
}

// beginClose is close for a caller that calls notify later.
func (s *subscription) beginClose(deadline time.Time) {
	s.closeOnce.Do(func() {
		s.deadline = deadline
		close(s.closing)
	})
}

// isCancelled reports whether the subscription closes, or will as its context is done.
func (s *subscription) isCancelled() bool { return isClosed(s.closing) || isClosed(s.ctxDone) }

// ends reports whether the subscription closes, or will: also as its listener is gone.
func (s *subscription) ends() bool { return s.isCancelled() || isClosed(s.listener.Done()) }

// closeInTime is close with the usual deadline.
func (s *subscription) closeInTime() { s.close(time.Now().Add(s.subscriber.cfg.CloseTimeout)) }

// expire ends a subscription whose handlers have had their time. It begins the end first: while the pump takes
// messages, their base must live, as what ends with it comes back at once, and would be taken again and again.
func (s *subscription) expire() {
	s.close(time.Now())
	s.cancelBase()
}

// finish waits for close, or closes the subscription when the listener is gone, and ends it.
func (p *pump) finish(stop func() bool) {
	select {
	case <-p.closing:
	case <-p.listener.Done():
		p.closeInTime()
	}
	stop()
	timer := time.AfterFunc(time.Until(p.deadline), p.cancelBase)
	p.awaitPump()
	p.watchers.Wait() // soon after base at the latest
	p.inStore(p.member.Leave)
	p.awaitOthers()
	p.syncAcks()
	timer.Stop()
	p.cancelBase()
	close(p.out)
	p.late = p.code.late()
	p.sayLate(p.late)
	p.subscriber.forget(p.subscription)
	p.subscriber.manager.subscriptions.remove(p.subscription)
	close(p.done)
}

func (s *subscription) fields(more watermill.LogFields) watermill.LogFields {
	return watermill.LogFields{
		"provider": "buffstreams", "topic": s.topic, "consumer_group": s.subscriber.cfg.ConsumerGroup,
	}.Add(more)
}
