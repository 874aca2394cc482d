package buffstreams

import (
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/buffstreams/watermill-buffstreams/internal/dispatch"
)

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
		p.acked = append(p.acked, f.ctx.end())
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

// watchFirst leaves the first n messages in flight to watchers, apart from those that were acked.
func (p *pump) watchFirst(n int) {
	for _, f := range p.inFlight[:n] {
		if !p.reapOne(f) {
			p.startWatcher(f)
		}
	}
	p.removeFirst(n)
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
	if p.durable {
		p.acked = nil // whoever takes the pump over leaves them to the goroutine that is in the DedupeStore
		p.code.enter(nameDedupe)
	}
	p.member.SettleAll(acked)
	if p.durable {
		p.code.leave()
	}
	clear(acked)
	p.acked = acked[:0]
}

// takeBack takes the messages that no handler has received out of the channel and of inFlight.
func (p *pump) takeBack() (back []dispatch.Delivery) {
	kept := p.inFlight[:0]
	var received *message.Message
	for _, f := range p.inFlight {
		if received == nil {
			select {
			case received = <-p.out:
			default:
			}
		}
		if f.msg != received { // the channel is in the same order: a handler has it
			kept = append(kept, f)
			continue
		}
		received = nil
		back = append(back, f.ctx.end())
	}
	clear(p.inFlight[len(kept):])
	p.inFlight = kept
	return back
}
