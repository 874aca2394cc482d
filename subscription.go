package buffstreams

import (
	"bytes"
	"context"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/buffstreams/watermill-buffstreams/internal/dispatch"
)

// subscription emits the messages of a topic. It has MaxInFlight lanes: each is a goroutine that takes the next message,
// emits it and stays with it until it is acked. They take turns in taking and emitting, so that messages are emitted in
// order.
type subscription struct {
	subscriber *Subscriber
	topic      string
	member     *dispatch.Member
	out        chan *message.Message

	turn    sync.Mutex      // held by the lane that takes and emits
	ready   chan struct{}   // tells that lane that there may be a message
	closing chan struct{}   // closed: no further message
	once    sync.Once       // closes closing
	base    context.Context // parent of the messages' contexts
	cut     context.CancelFunc
	lanes   sync.WaitGroup
	done    chan struct{} // closed when all is over
}

func newSubscription(ctx context.Context, s *Subscriber, topic string, t *dispatch.Topic, gone <-chan struct{}) *subscription {
	sub := &subscription{
		subscriber: s, topic: topic,
		out:   make(chan *message.Message),
		ready: make(chan struct{}, 1), closing: make(chan struct{}), done: make(chan struct{}),
	}
	sub.base, sub.cut = context.WithCancel(context.WithoutCancel(ctx)) // handlers may end before they are cut
	sub.member = t.Join(s.cfg.ConsumerGroup, sub.notify)
	for range s.cfg.MaxInFlight {
		sub.lanes.Go(sub.lane) // ends after close
	}
	stop := context.AfterFunc(ctx, sub.close)
	go sub.finish(stop, gone) // ends after close, at most CloseTimeout later
	return sub
}

// notify is called with a lock held: it must not block.
func (s *subscription) notify() {
	select {
	case s.ready <- struct{}{}:
	default:
	}
}

// close asks for the end; done tells when it has come.
func (s *subscription) close() { s.once.Do(func() { close(s.closing) }) }

// finish ends the subscription when it is asked to.
func (s *subscription) finish(stop func() bool, gone <-chan struct{}) {
	select {
	case <-s.closing:
	case <-gone:
		s.close()
	}
	stop()
	timer := time.AfterFunc(s.subscriber.cfg.CloseTimeout, s.cut)
	s.lanes.Wait()
	timer.Stop()
	s.cut()
	s.member.Leave()
	close(s.out)
	s.subscriber.forget(s)
	close(s.done)
}

// lane handles one message at a time until the subscription closes.
func (s *subscription) lane() {
	for {
		s.turn.Lock()
		d, e, ok := s.next()
		s.turn.Unlock()
		if !ok {
			return
		}
		s.see(d, e)
	}
}

// emission is one message on its way through a handler.
type emission struct {
	msg *message.Message
	ctx *messageContext
}

// next takes the next message and emits it. ok is false when the subscription closes.
func (s *subscription) next() (dispatch.Delivery, emission, bool) {
	for {
		p, ok := s.take()
		if !ok {
			return p.delivery, emission{}, false
		}
		d := p.delivery
		e, ok := s.prepare(p)
		if !ok {
			continue
		}
		switch s.emit(e, s.ready) {
		case emitted:
			return d, e, true
		case closed:
			s.member.Return(d)
			return d, e, false
		}
		s.member.Pass(d)
		if !s.wait() {
			return d, e, false
		}
	}
}

// taken is a delivery and what the Unmarshaler made of it.
type taken struct {
	delivery dispatch.Delivery
	msg      *message.Message
	err      error
}

// take waits for a message whose turn it is.
func (s *subscription) take() (taken, bool) {
	for {
		select {
		case <-s.closing:
			return taken{}, false
		default:
		}
		p, found, its := s.draw()
		if found && its {
			return p, true
		}
		if !found && !s.wait() {
			return taken{}, false
		}
	}
}

// draw takes the group's next message, if one is found, and tells whether its key lets it be handled now.
func (s *subscription) draw() (p taken, found, its bool) {
	key := s.subscriber.cfg.Key
	if key != nil {
		turn := s.member.Turn()
		turn.Lock()
		defer turn.Unlock()
	}
	if p.delivery, found = s.member.Take(); !found {
		return p, false, false
	}
	p.msg, p.err = s.unmarshal(p.delivery)
	if key == nil || p.err != nil && !s.subscriber.cfg.EmitUndecodable {
		return p, true, true
	}
	return p, true, s.member.Claim(&p.delivery, key(p.msg))
}

// wait waits until there may be a message. It returns false when the subscription closes.
func (s *subscription) wait() bool {
	select {
	case <-s.ready:
		return true
	case <-s.closing:
		return false
	}
}

// prepare makes a message ready for emission, or ends the delivery where it cannot be decoded.
func (s *subscription) prepare(p taken) (emission, bool) {
	if p.err != nil && !s.subscriber.cfg.EmitUndecodable {
		s.fail(p.delivery, p.msg, &UndecodableError{p.err})
		return emission{}, false
	}
	e := emission{msg: p.msg, ctx: &messageContext{parent: s.base, delivery: p.delivery}}
	p.msg.SetContext(e.ctx)
	return e, true
}

// unmarshal returns a message in any case: with an error, it has the raw bytes as payload.
func (s *subscription) unmarshal(d dispatch.Delivery) (*message.Message, error) {
	data := d.Message()
	if d.Shared() { // a handler of another group may write to it
		data = bytes.Clone(data)
	}
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

// rotation is how long a message is offered to a reader that does not take it, while another member of the group waits.
const rotation = 50 * time.Millisecond

// offer is what became of a message that was offered to the channel's reader.
type offer int

const (
	emitted offer = iota
	closed        // the subscription closes
	crowded       // nobody took it, and another member of the group waits
)

// emit offers a message to the channel's reader. Whoever has the turn passes ready, which tells as well that the group
// has grown; others must leave that to it.
func (s *subscription) emit(e emission, ready <-chan struct{}) offer {
	for {
		select {
		case s.out <- e.msg:
			return emitted
		case <-s.closing:
			return closed
		default:
		}
		var rotate <-chan time.Time
		if ready == nil || !s.member.Alone() {
			rotate = time.After(rotation)
		}
		select {
		case s.out <- e.msg:
			return emitted
		case <-s.closing:
			return closed
		case <-ready: // it may not be alone any more
		case <-rotate:
			if s.member.Crowded() {
				return crowded
			}
		}
	}
}

// see stays with a delivery until it is over: acked, refused, or returned to the group.
func (s *subscription) see(d dispatch.Delivery, e emission) {
	for {
		acked := s.outcome(e)
		e.ctx.end()
		if acked {
			s.member.Settle(d)
			return
		}
		d.Attempt++
		if reason := s.spent(d); reason != nil {
			msg, _ := s.unmarshal(d)
			s.fail(d, msg, reason)
			return
		}
		if !s.pause(s.delay(d.Attempt)) || s.member.Crowded() {
			s.member.Return(d)
			return
		}
		msg, err := s.unmarshal(d)
		var ok bool
		if e, ok = s.prepare(taken{d, msg, err}); !ok {
			return
		}
		if s.emit(e, nil) != emitted {
			s.member.Return(d)
			return
		}
	}
}

// outcome waits for the handler's word. It returns false for a Nack, and when the time for an answer is over.
func (s *subscription) outcome(e emission) (acked bool) {
	var late <-chan time.Time
	if t := s.subscriber.cfg.AckWaitTimeout; t > 0 {
		timer := time.NewTimer(t)
		defer timer.Stop()
		late = timer.C
	}
	select {
	case <-e.msg.Acked():
		return true
	case <-e.msg.Nacked():
		return false
	case <-late:
	case <-s.base.Done():
	}
	select {
	case <-e.msg.Acked():
		return true
	default:
		return false
	}
}

// pause waits before a redelivery. It returns false when the subscription closes.
func (s *subscription) pause(delay time.Duration) bool {
	if delay <= 0 {
		select {
		case <-s.closing:
			return false
		default:
			return true
		}
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
