package buffstreams

import (
	"bytes"
	"errors"
	"maps"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/buffstreams/watermill-buffstreams/internal/dispatch"
	"github.com/buffstreams/watermill-buffstreams/internal/hook"
)

const (
	// slowAfter is how long the pump waits for an ack before messages that handlers have get watchers, or are looked
	// through.
	slowAfter = time.Millisecond
	// longestLook is the most time between two looks through messages that wait, and watchAfter how long one waits so:
	// then it must not keep the memory that it arrived in.
	longestLook = 8 * time.Millisecond
	watchAfter  = 10 * time.Second
	// yieldAfter is how long a message stays in a channel that nothing reads while another member of the group waits.
	yieldAfter = 50 * time.Millisecond
	// maxShared is how many messages are in the channel at most while the group has other members, which could take
	// them.
	maxShared = 16
	// maxDeferred is how many acks are settled together at most.
	maxDeferred = 32
)

// pump moves a subscription's messages: it takes them from the group, emits them, and settles them when they are acked.
// One goroutine does all of that, so that a handler that acks promptly costs no other.
//
// A message that was taken is in one of these states:
//
//   - In flight, in inFlight: emitted, oldest first. The newest may still be in the channel; handlers have the others.
//   - Acked, in acked: to be settled. That is at once if ackImmediately is set, otherwise after the next messages
//     are emitted, and with deferAcks when maxDeferred have come or the timer runs down.
//   - Watched, counted in watched: nacked, slow or undecodable. A watcher settles it, ends it or gives it back to the
//     group, or queues it in redeliveries, from where it is in flight again.
//
// In flight and watched are MaxInFlight at most. The channel has room for as many, so that emitting never blocks. Acks
// are collected up to the first message without an answer; what stands behind that is found when it is answered, or
// when the timer has moved it to a watcher.
//
// The timer runs while messages are in flight, unless it could change nothing. When it runs down after an ack, it
// starts again. Without an ack, what handlers have goes to watchers; or, where nothing depends on each, only what
// younger messages have overtaken, or has waited for watchAfter: handlers that answer many messages together in their
// order, such as a bridge's, cost no watchers. If handlers have nothing, the channel is not read: the timeout grows to
// yieldAfter, and then the messages are yielded to members that wait. After that the pump takes nothing until it is
// woken.
//
// The Unmarshaler and the Key function run on the pump's goroutine. If one of them has not returned when the
// subscription ends, finish takes the pump over, and that goroutine does not touch it again.
type pump struct {
	*subscription
	decoding       decoding
	inFlight       []flight
	acked          []dispatch.Delivery
	ackImmediately bool // settle before anything else is emitted
	deferAcks      bool // the group has enough ready messages, so that publishers need not wait for the acks
	yielded        bool // it is other members' turn, who may not have taken the messages yet
	draining       bool // the subscription was cancelled: see drain

	timer      *time.Timer
	timerOn    bool          // it runs
	timeout    time.Duration // for which it runs
	timerFired atomic.Bool   // it has run down
	progress   bool          // a message was acked since it was started
}

// run ends when the subscription closes.
func (p *pump) run() {
	defer close(p.pumpDone)
	p.timer = time.AfterFunc(time.Hour, func() { p.timerFired.Store(true); p.notify() })
	defer p.timer.Stop()
	for !p.isCancelled() {
		p.reap()
		p.fill()
		p.wait()
		if p.member.Recalled() {
			p.recall()
		}
	}
	p.drain()
	p.stop()
}

// isClosed is a select of one channel, which takes no lock.
func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// fill emits as many messages as there is room for.
func (p *pump) fill() {
	for {
		f, ok := p.nextRedelivery()
		if !ok {
			if !p.hasRoom() {
				break
			}
			var found bool
			if f, ok, found = p.takeOne(); !found {
				break
			}
		}
		if ok {
			if p.traces {
				p.traceDelivered(f)
			}
			p.out <- f.msg
			p.inFlight = append(p.inFlight, f)
		}
	}
	if !p.deferAcks || !p.member.Exclusive() {
		p.settle()
	}
}

// hasRoom reports whether a message may be taken from the group.
func (p *pump) hasRoom() bool {
	return !p.yielded && len(p.inFlight)+int(p.watched.Load()) < cap(p.out) &&
		(len(p.out) < maxShared || p.member.Exclusive())
}

// takeOne takes the group's next message, if one is found; the pump is woken when there is one. ok is false if the
// message is not to be emitted now: it cannot be decoded, or another message has its key.
func (p *pump) takeOne() (f flight, ok, found bool) {
	if p.subscriber.cfg.Key != nil || !p.trusted {
		return p.takeWithUserCode()
	}
	var d dispatch.Delivery
	if !p.take(&d, false) {
		return f, false, false
	}
	msg, err := p.unmarshal(&d)
	if !p.emits(err) {
		p.startFailure(d, msg, &UndecodableError{err})
		return f, false, true
	}
	return p.newFlight(&d, msg), true, true
}

// takeWithUserCode is takeOne where the Unmarshaler is the user's, or there is a Key.
func (p *pump) takeWithUserCode() (f flight, ok, found bool) {
	var d dispatch.Delivery
	p.noteFirst() // that code may take its time
	if !p.take(&d, p.subscriber.cfg.Key != nil) {
		return f, false, false
	}
	keyed := p.subscriber.cfg.Key != nil && !d.HasKey()
	msg, key, err := p.decode(&d, keyed)
	emitted := p.emits(err)
	switch {
	case keyed && !emitted:
		p.member.Forgo(&d)
	case keyed && !p.member.Claim(&d, key):
		p.member.CheckKey(key)
		return f, false, true
	}
	switch {
	case p.draining && !d.Unkept(): // it was taken for its key
		p.giveBack(d)
		return f, false, true
	case !emitted:
		p.startFailure(d, msg, &UndecodableError{err})
		return f, false, true
	}
	return p.newFlight(&d, msg), true, true
}

// take takes a message out of the group, into d, which is empty.
func (p *pump) take(d *dispatch.Delivery, toClaim bool) (found bool) {
	if p.draining {
		*d, found = p.member.TakeUnkept(toClaim)
		p.deferAcks = false
		return found
	}
	p.deferAcks, found = p.member.TakeInto(d, toClaim)
	return found
}

// emits reports whether a message is emitted that was decoded, or could not be for the given reason.
func (p *pump) emits(reason error) bool { return reason == nil || p.subscriber.cfg.EmitUndecodable }

// startFailure ends a delivery that cannot be decoded. It counts as watched meanwhile.
func (p *pump) startFailure(d dispatch.Delivery, msg *message.Message, reason error) {
	d.Detach()
	p.watched.Add(1)
	p.member.Keep(&d)
	p.watchers.Go(func() { // Ends with fail, at the latest soon after base is cancelled; finish waits for it.
		p.fail(d, msg, reason)
		p.endWatch(d)
	})
}

// wait returns when the oldest message in flight is answered, the pump is woken, or the timer runs down.
func (p *pump) wait() {
	p.noteFirst()
	var acked, nacked <-chan struct{}
	if len(p.inFlight) > 0 {
		acked, nacked = p.inFlight[0].msg.Acked(), p.inFlight[0].msg.Nacked()
		p.startTimer()
	}
	select {
	case <-acked:
	case <-nacked:
	case <-p.wake:
		p.yielded = false
	}
	if p.timerFired.CompareAndSwap(true, false) {
		p.timerOn = false
		p.onTimer()
	}
}

// reap collects the answers of messages in flight, up to the first message that has none.
func (p *pump) reap() {
	n := 0
	for n < len(p.inFlight) && p.reapOne(p.inFlight[n]) {
		n++
	}
	p.removeFirst(n)
}

// reapOne takes over a message that was acked or nacked. It returns false for a message without an answer.
func (p *pump) reapOne(f flight) bool {
	switch {
	case f.acked():
		if p.traces {
			p.traceEnded(f, "acked")
		}
		p.acked = append(p.acked, *f.ctx.end())
		p.progress = true
		if p.watched.Load() > 0 {
			p.handling.answered()
		}
		if p.timeout > slowAfter { // the channel is read again
			p.timeout, p.timerOn = slowAfter, false
		}
	case f.nacked():
		p.startWatcher(f)
	default:
		return false
	}
	return true
}

// removeFirst takes the first n messages, which were acked or are watched, out of inFlight.
func (p *pump) removeFirst(n int) {
	if n == 0 {
		return
	}
	left := copy(p.inFlight, p.inFlight[n:])
	clear(p.inFlight[left:])
	p.inFlight = p.inFlight[:left]
	if p.ackImmediately || len(p.acked) >= maxDeferred {
		p.settle()
	}
}

// settle reports acked messages to the topic.
func (p *pump) settle() {
	if len(p.acked) == 0 {
		return
	}
	acked := p.acked
	handled := p.handled(acked...)
	if p.durable {
		p.acked = nil // the goroutine that takes the pump over leaves them to the goroutine that is in the DedupeStore
		p.code.enter(nameDedupe)
	}
	p.member.SettleAll(acked)
	if p.durable {
		p.code.leave()
	}
	clear(acked)
	p.acked = acked[:0]
	p.tellHandled(handled)
}

// noteFirst tells Stats which message is the oldest in flight.
func (p *pump) noteFirst() {
	if len(p.inFlight) == 0 {
		p.member.NoteFirst(nil)
		return
	}
	p.member.NoteFirst(&p.inFlight[0].ctx.delivery)
}

// flight is one delivery as a Watermill message, from its emission to its end.
type flight struct {
	msg  *message.Message
	ctx  *messageContext // has the delivery
	seen time.Time       // when onTimer first found it without an answer
}

func (s *subscription) newFlight(d *dispatch.Delivery, msg *message.Message) flight {
	f := flight{msg: msg, ctx: &messageContext{sub: s, delivery: *d}}
	msg.SetContext(f.ctx)
	return f
}

func (f flight) acked() bool { return isClosed(f.msg.Acked()) }

func (f flight) nacked() bool { return isClosed(f.msg.Nacked()) }

// decoding is the delivery that the pump's callbacks are about.
type decoding struct {
	busy     bool
	delivery dispatch.Delivery
}

// decode returns a delivery's message and, where that is asked for, its key. With an error, the message has the raw
// bytes as payload.
func (p *pump) decode(d *dispatch.Delivery, keyed bool) (msg *message.Message, key string, err error) {
	p.decoding = decoding{true, *d}
	if p.trusted {
		msg, err = p.unmarshal(d)
	} else {
		p.code.enter(nameUnmarshaler)
		msg, err = p.unmarshal(d)
		p.code.leave()
	}
	if keyed {
		p.code.enter(nameKey)
		failed := hook.Call(nameKey, func() error { key = p.subscriber.cfg.Key(msg); return nil })
		p.code.leave()
		if failed != nil && err == nil {
			msg, err = undecoded(d, failed), failed
		}
	}
	p.decoding = decoding{}
	return msg, key, err
}

// unmarshal returns a message in any case: see decode.
func (s *subscription) unmarshal(d *dispatch.Delivery) (*message.Message, error) {
	if !s.trusted {
		return s.unmarshalGuarded(d)
	}
	msg, err := s.subscriber.cfg.Unmarshaler.Unmarshal(s.topic, d.Message())
	if err != nil {
		return undecoded(d, err), err
	}
	return msg, nil
}

// unmarshalGuarded is unmarshal for an Unmarshaler of the user's.
func (s *subscription) unmarshalGuarded(d *dispatch.Delivery) (msg *message.Message, err error) {
	err = hook.Call(nameUnmarshaler, func() (err error) {
		if msg, err = s.subscriber.cfg.Unmarshaler.Unmarshal(s.topic, d.Message()); err == nil {
			msg, err = usable(msg)
		}
		return err
	})
	if err != nil {
		return undecoded(d, err), err
	}
	return msg, nil
}

// undecoded is a message that cannot be decoded.
func undecoded(d *dispatch.Delivery, reason error) *message.Message {
	msg := message.NewMessage(watermill.NewUUID(), d.Message())
	msg.Metadata.Set(UndecodableKey, reason.Error())
	return msg
}

var errNoMessageDecoded = errors.New("the Unmarshaler returned neither a message nor an error")

// usable makes a message of the user's one that can be emitted: with metadata that can be added to, and with an answer
// of its own that can be waited for. A literal has none, and one that was emitted or answered before has another's.
func usable(msg *message.Message) (*message.Message, error) {
	if msg == nil {
		return nil, errNoMessageDecoded
	}
	_, emitted := msg.Context().(*messageContext)
	if emitted || msg.Acked() == nil || msg.Nacked() == nil || isClosed(msg.Acked()) || isClosed(msg.Nacked()) {
		fresh := message.NewMessage(msg.UUID, bytes.Clone(msg.Payload))
		maps.Copy(fresh.Metadata, msg.Metadata)
		return fresh, nil
	}
	if msg.Metadata == nil {
		msg.Metadata = message.Metadata{}
	}
	return msg, nil
}
