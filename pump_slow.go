package buffstreams

import (
	"time"
)

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
	case p.nothingToDo(), p.progress: // with an ack, reapOne has shortened the timeout
	case handled > 0 && p.member.Exclusive() && p.handling.timeout == 0:
		p.timeout = min(2*p.timeout, longestLook)
		p.watchFirst(p.overtaken(handled))
	case handled > 0:
		p.timeout = slowAfter
		p.watchFirst(handled)
	case p.timeout < yieldAfter:
		p.timeout = min(8*p.timeout, yieldAfter)
	case p.member.HasWaiters():
		back := p.takeBack()
		p.inStore(func() { p.member.Yield(back...) })
		p.yielded = true
	}
}

// overtaken returns how many of the first n messages in flight have been overtaken by the answer of a younger one, or
// have waited for too long, as far as the last of them.
func (p *pump) overtaken(n int) (last int) {
	now := time.Now()
	for i := range p.inFlight[:n] {
		switch f := &p.inFlight[i]; {
		case f.acked() || f.nacked():
			last, p.timeout = i+1, slowAfter
		case f.seen.IsZero():
			f.seen = now
		case now.Sub(f.seen) >= watchAfter:
			last = i + 1
		}
	}
	return last
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
