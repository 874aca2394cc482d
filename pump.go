package buffstreams

import (
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/buffstreams/watermill-buffstreams/internal/dispatch"
)

const (
	// slowAfter is how long the pump waits for an ack before messages that handlers have get watchers.
	slowAfter = time.Millisecond
	// yieldAfter is how long a message stays in a channel that nothing reads while another member of the group waits.
	yieldAfter = 50 * time.Millisecond
	// maxShared is how many messages are in the channel at most while the group has other members, which could take
	// them.
	maxShared = 16
	// maxDeferred is how many acks are settled together at most.
	maxDeferred = 32
)

// pump moves a subscription's messages: it takes them from the group, emits them, and settles them when they are acked.
// One goroutine does all of that, so that a handler that acks promptly costs no other; see reap.go for the way back.
//
// A message that was taken is in one of these states:
//
//   - In flight, in inFlight: emitted, oldest first. The newest may still be in the channel; handlers have the others.
//   - Acked, in acked: to be settled. That is at once if ackImmediately is set, otherwise after the next messages
//     are emitted, and with deferAcks when maxDeferred have come or the timer runs down.
//   - Watched, counted in watched: nacked, slow or undecodable. A watcher settles it, ends it or gives it back to the
//     group, or queues it in redeliveries, from where it is in flight again.
//
// In flight and watched are MaxInFlight at most. The channel has room for as many, so that emitting never blocks. Acks are collected up to the first message without an answer;
// what stands behind that is found when it is answered, or when the timer has moved it to a watcher.
//
// The timer runs while messages are in flight, unless it could change nothing. When it runs down after an ack, it
// starts again. Without an ack, what handlers have goes to watchers. If handlers have nothing, the channel is not read:
// the timeout grows to yieldAfter, and then the messages are yielded to members that wait. After that the pump takes
// nothing until it is woken.
//
// The Unmarshaler and the Key function run on the pump's goroutine. If one of them has not returned when the subscription
// ends, finish takes the pump over, and that goroutine does not touch it again.
type pump struct {
	*subscription
	decoding       decoding
	inFlight       []flight
	acked          []dispatch.Delivery
	ackImmediately bool // settle before anything else is emitted
	deferAcks      bool // the group has enough ready messages, so that publishers need not wait for the acks
	yielded        bool // it is other members' turn, who may not have taken the messages yet

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
	for !p.stopping() {
		p.reap()
		p.fill()
		p.wait()
	}
	p.stop()
}

// stopping reports whether the subscription closes, or will as its context is done.
func (p *pump) stopping() bool { return isClosed(p.closing) || isClosed(p.ctxDone) }

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

// takeOne takes the group's next message, if one is found; the pump is woken when there is one. ok is false if the message
// is not to be emitted now: it cannot be decoded, or another message has its key.
func (p *pump) takeOne() (f flight, ok, found bool) {
	if p.subscriber.cfg.Key != nil || !p.trusted {
		return p.takeWithUserCode()
	}
	d, deferAcks, found := p.member.Take()
	p.deferAcks = deferAcks
	if !found {
		return f, false, false
	}
	msg, err := p.unmarshal(&d)
	if !p.emits(err) {
		p.startFailure(d, msg, &UndecodableError{err})
		return f, false, true
	}
	return p.newFlight(d, msg), true, true
}

// takeWithUserCode is takeOne where the Unmarshaler is the user's, or there is a Key.
func (p *pump) takeWithUserCode() (f flight, ok, found bool) {
	take := p.member.Take
	if p.subscriber.cfg.Key != nil {
		take = p.member.TakeToClaim
	}
	d, deferAcks, found := take()
	p.deferAcks = deferAcks
	if !found {
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
	if !emitted {
		p.startFailure(d, msg, &UndecodableError{err})
		return f, false, true
	}
	return p.newFlight(d, msg), true, true
}

// emits reports whether a message is emitted that was decoded, or could not be for the given reason.
func (p *pump) emits(reason error) bool { return reason == nil || p.subscriber.cfg.EmitUndecodable }

// startFailure ends a delivery that cannot be decoded. It counts as watched meanwhile.
func (p *pump) startFailure(d dispatch.Delivery, msg *message.Message, reason error) {
	d.Detach()
	p.watched.Add(1)
	p.watchers.Go(func() { // Ends with fail, at the latest soon after base is cancelled; finish waits for it.
		p.fail(d, msg, reason)
		p.endWatch()
	})
}

// wait returns when the oldest message in flight is answered, the pump is woken, or the timer runs down.
func (p *pump) wait() {
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

// startTimer starts the timer, unless it runs or could change nothing.
func (p *pump) startTimer() {
	if p.timerOn || len(p.acked) == 0 && p.nothingToDo() {
		return
	}
	p.timerOn, p.progress = true, false
	p.timeout = max(p.timeout, slowAfter)
	p.timer.Reset(p.timeout)
}

// nothingToDo reports whether a message without an answer can only be waited for: there is room for no other, its
// handler has no time limit, and no other member could take it.
func (p *pump) nothingToDo() bool {
	return cap(p.out) == 1 && p.subscriber.cfg.AckWaitTimeout == 0 && p.member.Exclusive()
}

// onTimer settles deferred acks and sees to messages without an answer, as described at pump.
func (p *pump) onTimer() {
	p.settle()
	handled := len(p.inFlight) - len(p.out) // by handlers, which may have taken more since
	switch {
	case p.nothingToDo():
	case p.progress:
		p.timeout = slowAfter
	case handled > 0:
		p.timeout = slowAfter
		p.watchFirst(handled)
	case p.timeout < yieldAfter:
		p.timeout = min(8*p.timeout, yieldAfter)
	case p.member.HasWaiters():
		p.member.Yield(p.takeBack()...)
		p.yielded = true
	}
}

// stop gives back what no handler has, and leaves the rest to watchers.
func (p *pump) stop() {
	p.member.StopTaking() // handlers may run on for a while, and siblings must not wait for that
	for _, d := range p.takeBack() {
		p.member.Return(d)
	}
	p.watchFirst(len(p.inFlight))
	p.settle()
	for _, d := range p.endRedeliveries() {
		p.member.Return(d)
	}
}
