package consume

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/message/router/middleware"

	"github.com/buffstreams/watermill-buffstreams/engines/driver"
)

// emission is a message as a handler gets it.
type emission struct {
	item   *item
	msg    *message.Message
	cancel context.CancelFunc // of the message's context
}

// copyOf is a copy, so that what a handler does to its message is not in a redelivery.
func copyOf(from *message.Message) *message.Message {
	msg := message.NewMessage(from.UUID, slices.Clone(from.Payload))
	maps.Copy(msg.Metadata, from.Metadata)
	return msg
}

// emission makes the message of an item as a handler gets it.
func (s *subscription) emission(it *item) *emission {
	ctx := s.handling
	if it.delivery.ID != "" {
		ctx = driver.WithID(ctx, it.delivery.ID)
	}
	e := &emission{item: it, cancel: func() {}}
	switch {
	case !s.unchanged:
		ctx, e.cancel = context.WithCancel(ctx)
		e.msg = copyOf(it.delivery.Message)
	case it.attempts == 0:
		e.msg = it.delivery.Message
	default: // what it shares with the first one was not changed
		e.msg = message.NewMessage(it.delivery.Message.UUID, it.delivery.Message.Payload)
		e.msg.Metadata = it.delivery.Message.Metadata
	}
	e.msg.SetContext(ctx)
	return e
}

// offer returns what can be emitted now, and the channel for it; nil if there is nothing.
func (s *subscription) offer() (chan<- *message.Message, *message.Message) {
	if len(s.ready) == 0 || s.inFlight >= s.cfg.Settings.MaxInFlight {
		return nil, nil
	}
	if s.next == nil {
		s.next = s.emission(s.ready[0])
	}
	return s.out, s.next.msg
}

// emitted notes that the application has the message that was offered.
func (s *subscription) emitted() {
	e := s.next
	s.next, s.ready[0] = nil, nil
	s.ready = s.ready[1:]
	e.item.attempts++
	s.inFlight++
	s.running++
	s.emissions = append(s.emissions, e)
}

// answered takes over the answer of a message. It returns false if there is none.
func (s *subscription) answered(e *emission) bool {
	select {
	case <-e.msg.Acked():
		s.applyTo(e.item, acked)
	case <-e.msg.Nacked():
		s.applyTo(e.item, nacked)
	default:
		return false
	}
	e.cancel()
	return true
}

// answers are those of the oldest message that run waits for, nil if there is none. The next look is due if there are
// others.
func (s *subscription) answers() (acked, nacked <-chan struct{}) {
	if len(s.emissions) == 0 {
		return nil, nil
	}
	if len(s.emissions) > 1 && !s.lookSoon {
		s.lookSoon, s.pause = true, max(s.pause, lookAfter)
		s.looking.Reset(s.pause)
	}
	return s.emissions[0].msg.Acked(), s.emissions[0].msg.Nacked()
}

// reap takes over the answers that have come, up to the first message without one.
func (s *subscription) reap() {
	n := 0
	for n < len(s.emissions) && s.answered(s.emissions[n]) {
		n++
	}
	s.dropEmissions(n)
}

// lookAfter is how long an answer of a message may wait behind a message without one, and longestLook how long where
// there was none the last times.
const (
	lookAfter   = time.Millisecond
	longestLook = 8 * time.Millisecond
)

// look takes over the answers of messages that have overtaken others, and leaves those to goroutines of their own, so
// that they hold up none. Handlers that answer in order, such as a bridge, need no goroutine.
func (s *subscription) look() {
	last := len(s.emissions)
	for last > 0 && !isClosed(s.emissions[last-1].msg.Acked()) && !isClosed(s.emissions[last-1].msg.Nacked()) {
		last--
	}
	s.lookSoon, s.pause = false, min(2*s.pause, longestLook)
	if last > 0 {
		s.pause = lookAfter
	}
	for _, e := range s.emissions[:last] {
		if !s.answered(e) {
			s.tasks.Go(func() { s.await(e) }) // ends with the handler, or with handling
		}
	}
	s.dropEmissions(last)
}

func (s *subscription) dropEmissions(n int) {
	clear(s.emissions[:n])
	if s.emissions = s.emissions[n:]; len(s.emissions) == 0 {
		s.emissions = nil // it moves through its memory, which append makes anew
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// await reports what the handler did.
func (s *subscription) await(e *emission) {
	defer e.cancel()
	items := []*item{e.item}
	select {
	case <-e.msg.Acked():
		s.report(event{acked, items})
	case <-e.msg.Nacked():
		s.report(event{nacked, items})
	case <-s.handling.Done():
	}
}

// apply changes the state by what happened.
func (s *subscription) apply(e event) {
	for _, it := range e.items {
		s.applyTo(it, e.kind)
	}
}

func (s *subscription) applyTo(it *item, kind eventKind) {
	switch kind {
	case acked, buried:
		s.running--
		s.inFlight--
		s.handled = append(s.handled, it)
		s.release(it.key)
	case nacked:
		s.running--
		s.refuse(it)
	case due:
		s.inFlight--
		s.ready = append([]*item{it}, s.ready...) // it is the oldest of its key, and of its subscription mostly
		s.dropOffer()
	case settled:
		s.settledOne(it)
	}
}

// settledOne forgets an item, unless the engine has given it again meanwhile: then that is settled too.
func (s *subscription) settledOne(it *item) {
	s.busy = false
	if it.repeat != nil {
		it.delivery, it.repeat = *it.repeat, nil
		s.handled = append(s.handled, it)
		return
	}
	delete(s.held, it)
	delete(s.byID, it.delivery.ID)
}

// dropOffer takes back an offer that is not at the head of the line any more.
func (s *subscription) dropOffer() {
	if s.next != nil {
		s.next.cancel()
		s.next = nil
	}
}

// release lets the next message of a key go on.
func (s *subscription) release(key string) {
	if key == "" {
		return
	}
	waiting := s.behind[key]
	if len(waiting) == 0 {
		delete(s.behind, key)
		return
	}
	s.behind[key] = waiting[1:]
	s.ready = append(s.ready, waiting[0])
}

// refuse deals with a message that was nacked.
func (s *subscription) refuse(it *item) {
	set := &s.cfg.Settings
	if set.Attempts > 0 && it.attempts >= set.Attempts {
		s.running++
		s.tasks.Go(func() { s.publishDeadLetter(it) }) // ends when the dead letter is published, or with handling
		return
	}
	delay := set.NackDelay
	for i := 1; i < it.attempts && delay < set.NackDelayMax; i++ {
		delay *= 2
	}
	it.again = time.AfterFunc(min(delay, set.NackDelayMax), func() { s.report(event{due, []*item{it}}) })
}

// publishDeadLetter publishes a dead letter, with the metadata of Watermill's poison queue, until that works.
func (s *subscription) publishDeadLetter(it *item) {
	msg := copyOf(it.delivery.Message)
	msg.Metadata.Set(middleware.ReasonForPoisonedKey, "attempts exhausted")
	msg.Metadata.Set(middleware.PoisonedTopicKey, s.topic)
	pause := backoff{}
	trouble := driver.Trouble{Logger: s.logger, What: "Cannot publish a dead letter; trying again", Over: "The dead letter is published"}
	for s.handling.Err() == nil {
		err := s.cfg.DeadLetter.Publish(s.cfg.Settings.DeadLetter, msg)
		if err == nil {
			trouble.Worked()
			s.report(event{buried, []*item{it}})
			return
		}
		trouble.Failed(err, watermill.LogFields{"uuid": msg.UUID})
		pause.wait(s.handling)
	}
}

// extend keeps what is in hand from being given to others.
func (s *subscription) extend() {
	deliveries := make([]driver.Delivery, 0, len(s.held))
	for it := range s.held {
		deliveries = append(deliveries, it.delivery)
	}
	if len(deliveries) == 0 {
		return
	}
	s.tasks.Go(func() { // ends within a third of RedeliverAfter
		ctx, cancel := context.WithTimeout(s.handling, s.cfg.Settings.RedeliverAfter/3)
		defer cancel()
		if err := s.source.Extend(ctx, deliveries); err != nil && ctx.Err() == nil {
			s.extension.Failed(s.cfg.Explain(err), nil)
		} else if err == nil {
			s.extension.Worked()
		}
	})
}
