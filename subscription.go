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

// subscription emits the messages of a topic, up to MaxInFlight at a time: see pump. Those whose handlers take their time
// have a tender each.
type subscription struct {
	subscriber *Subscriber
	topic      string
	member     *dispatch.Member
	out        chan *message.Message

	wake    chan struct{}   // tells the pump that there may be something to do
	asked   <-chan struct{} // closed: no further message, says who subscribed
	closing chan struct{}   // closed: no further message
	once    sync.Once       // closes closing
	base    context.Context // parent of the messages' contexts
	cut     context.CancelFunc
	busy    sync.WaitGroup // the pump and the tenders
	tended  atomic.Int32   // messages that have a tender, or are in repeats
	done    chan struct{}  // closed when all is over

	mu      sync.Mutex
	repeats []dispatch.Delivery // for the pump to emit again
	ended   bool                // the pump has
}

// flight is one message on its way through a handler.
type flight struct {
	msg *message.Message
	ctx *messageContext
}

// acked tells whether the handler has acked.
func (f flight) acked() bool { return isClosed(f.msg.Acked()) }

// nacked tells whether the handler has nacked.
func (f flight) nacked() bool { return isClosed(f.msg.Nacked()) }

func newSubscription(ctx context.Context, s *Subscriber, topic string, t *dispatch.Topic, gone <-chan struct{}) *subscription {
	sub := &subscription{
		subscriber: s, topic: topic,
		out: make(chan *message.Message, s.cfg.MaxInFlight), asked: ctx.Done(),
		wake: make(chan struct{}, 1), closing: make(chan struct{}), done: make(chan struct{}),
	}
	sub.base, sub.cut = context.WithCancel(context.WithoutCancel(ctx)) // handlers may end before they are cut
	sub.member = t.Join(s.cfg.ConsumerGroup, sub.notify)
	p := &pump{subscription: sub, prompt: s.cfg.Key != nil || sub.member.AcksImmediately()}
	sub.busy.Go(p.run) // ends after close
	stop := context.AfterFunc(ctx, sub.close)
	go sub.finish(stop, gone) // ends after close, at most CloseTimeout later
	return sub
}

// notify is called with a lock held: it must not block.
func (s *subscription) notify() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// close asks for the end; done tells when it has come.
func (s *subscription) close() {
	s.once.Do(func() { close(s.closing) })
	s.notify()
}

// finish ends the subscription when it is asked to.
func (s *subscription) finish(stop func() bool, gone <-chan struct{}) {
	select {
	case <-s.closing:
	case <-gone:
		s.close()
	}
	stop()
	timer := time.AfterFunc(s.subscriber.cfg.CloseTimeout, s.cut)
	s.busy.Wait()
	timer.Stop()
	s.cut()
	s.member.Leave()
	close(s.out)
	s.subscriber.forget(s)
	close(s.done)
}

// prepare makes a message ready for emission, or ends the delivery where it cannot be decoded.
func (s *subscription) prepare(d dispatch.Delivery, msg *message.Message, err error) (flight, bool) {
	if err != nil && !s.subscriber.cfg.EmitUndecodable {
		s.tended.Add(1)
		s.busy.Go(func() { // ends with the failure, which gives up when the subscription closes
			s.fail(d, msg, &UndecodableError{err})
			s.free()
		})
		return flight{}, false
	}
	f := flight{msg, &messageContext{of: s, delivery: d}}
	msg.SetContext(f.ctx)
	return f, true
}

// unmarshal returns a message in any case: with an error, it has the raw bytes as payload.
func (s *subscription) unmarshal(d dispatch.Delivery) (*message.Message, error) {
	data := d.Message()
	msg, err := s.subscriber.cfg.Unmarshaler.Unmarshal(s.topic, data)
	if err != nil {
		msg = message.NewMessage(watermill.NewUUID(), data)
		msg.Metadata.Set(UndecodableKey, err.Error())
	}
	return msg, err
}

func (s *subscription) fields(more watermill.LogFields) watermill.LogFields {
	return watermill.LogFields{
		"provider": "buffstreams", "topic": s.topic, "consumer_group": s.subscriber.cfg.ConsumerGroup,
	}.Add(more)
}

// tend gives a message a tender, which stays with it until the delivery is over or has to be repeated.
func (s *subscription) tend(f flight) {
	s.tended.Add(1)
	s.busy.Go(func() { s.see(f) }) // ends with the handler's word, or when the contexts are cut
}

// see is a tender: the delivery is settled, refused, repeated or returned to the group.
func (s *subscription) see(f flight) {
	acked := s.outcome(f)
	d := f.ctx.end()
	if acked {
		s.member.Settle(d)
		s.free()
		return
	}
	d.Attempt++
	if reason := s.spent(d); reason != nil {
		msg, _ := s.unmarshal(d)
		s.fail(d, msg, reason)
		s.free()
		return
	}
	if !s.pause(s.delay(d.Attempt)) || s.member.HasWaiters() || !s.repeat(d) {
		s.member.Return(d)
		s.free()
	}
}

// free makes room for a further message.
func (s *subscription) free() {
	s.tended.Add(-1)
	s.notify()
}

// repeat has the pump emit a message once more, unless it has ended.
func (s *subscription) repeat(d dispatch.Delivery) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return false
	}
	s.repeats = append(s.repeats, d)
	s.notify()
	return true
}

// repeated is the next message to emit once more. Its room is the caller's.
func (s *subscription) repeated() (f flight, ok bool) {
	for s.tended.Load() > 0 && !ok {
		s.mu.Lock()
		if len(s.repeats) == 0 {
			s.mu.Unlock()
			return f, false
		}
		d := s.repeats[0]
		s.repeats = s.repeats[1:]
		s.mu.Unlock()
		msg, err := s.unmarshal(d)
		f, ok = s.prepare(d, msg, err)
		s.tended.Add(-1)
	}
	return f, ok
}

// endRepeats refuses further repeats and returns those that are left.
func (s *subscription) endRepeats() []dispatch.Delivery {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	return s.repeats
}

// outcome waits for the handler's word. It returns false for a Nack, and when the time for an answer is over.
func (s *subscription) outcome(f flight) (acked bool) {
	var late <-chan time.Time
	if t := s.subscriber.cfg.AckWaitTimeout; t > 0 {
		timer := time.NewTimer(t)
		defer timer.Stop()
		late = timer.C
	}
	select {
	case <-f.msg.Acked():
		return true
	case <-f.msg.Nacked():
		return false
	case <-late:
	case <-s.base.Done():
	}
	return f.acked()
}

// pause waits before a redelivery. It returns false when the subscription closes.
func (s *subscription) pause(delay time.Duration) bool {
	if delay <= 0 {
		return !isClosed(s.closing)
	}
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-s.closing:
		return false
	}
}

// delay doubles with each attempt, up to the cap.
func (s *subscription) delay(attempt int) time.Duration {
	delay, limit := s.subscriber.cfg.NackResendSleep, s.subscriber.cfg.NackResendCap
	for ; attempt > 1 && delay < limit; attempt-- {
		delay *= 2
	}
	return min(delay, limit)
}
