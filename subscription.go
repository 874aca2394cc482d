package buffstreams

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/buffstreams/watermill-buffstreams/internal/dispatch"
)

// subscription is one Subscribe call. Its pump emits the topic's messages, up to MaxInFlight at a time, and settles
// those that are acked promptly. The others have a watcher each, so that they hold up none.
type subscription struct {
	subscriber *Subscriber
	topic      string
	member     *dispatch.Member
	out        chan *message.Message

	wake       chan struct{}   // has an element when the pump may have something to do
	ctxDone    <-chan struct{} // of Subscribe's context; close follows
	closing    chan struct{}   // closed by close: no further message is emitted
	closeOnce  sync.Once
	base       context.Context // parent of the messages' contexts
	cancelBase context.CancelFunc
	wg         sync.WaitGroup // the pump, the watchers and the failures
	watched    atomic.Int32   // messages that have a watcher, fail, or are in redeliveries
	done       chan struct{}  // closed at the end of finish

	mu           sync.Mutex          // guards redeliveries and stopped
	redeliveries []dispatch.Delivery // for the pump to emit again
	stopped      bool                // the pump takes no further redelivery
}

// newSubscription joins the topic and emits its messages until close is called, ctx is done, or gone is closed. It
// returns nil if the topic has ended.
func newSubscription(ctx context.Context, s *Subscriber, topic string, t *dispatch.Topic, gone <-chan struct{}) *subscription {
	sub := &subscription{
		subscriber: s, topic: topic,
		out: make(chan *message.Message, s.cfg.MaxInFlight), ctxDone: ctx.Done(),
		wake: make(chan struct{}, 1), closing: make(chan struct{}), done: make(chan struct{}),
	}
	// Handlers may go on for CloseTimeout after ctx is done.
	sub.base, sub.cancelBase = context.WithCancel(context.WithoutCancel(ctx))
	if sub.member = t.Join(s.cfg.ConsumerGroup, sub.notify); sub.member == nil {
		sub.cancelBase()
		return nil
	}
	p := &pump{subscription: sub, ackImmediately: s.cfg.Key != nil || sub.member.AcksImmediately()}
	sub.wg.Go(p.run) // Ends after close; finish waits for it.
	stop := context.AfterFunc(ctx, sub.close)
	go sub.finish(stop, gone) // Ends at most CloseTimeout after close, unless a hook blocks; Close waits for done.
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

// close begins the end of the subscription; done is closed when it has ended.
func (s *subscription) close() {
	s.closeOnce.Do(func() { close(s.closing) })
	s.notify()
}

// finish waits for close, or closes the subscription when the listener is gone, and ends it.
func (s *subscription) finish(stop func() bool, gone <-chan struct{}) {
	select {
	case <-s.closing:
	case <-gone:
		s.close()
	}
	stop()
	timer := time.AfterFunc(s.subscriber.cfg.CloseTimeout, s.cancelBase)
	s.wg.Wait()
	timer.Stop()
	s.cancelBase()
	s.member.Leave()
	close(s.out)
	s.subscriber.forget(s)
	close(s.done)
}

func (s *subscription) fields(more watermill.LogFields) watermill.LogFields {
	return watermill.LogFields{
		"provider": "buffstreams", "topic": s.topic, "consumer_group": s.subscriber.cfg.ConsumerGroup,
	}.Add(more)
}
