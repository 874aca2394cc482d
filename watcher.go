package buffstreams

import (
	"time"

	"github.com/buffstreams/watermill-buffstreams/internal/dispatch"
	"github.com/buffstreams/watermill-buffstreams/internal/hook"
)

// startWatcher gives a message that is slow or nacked a goroutine of its own.
func (s *subscription) startWatcher(f flight) {
	s.watched.Add(1)
	s.member.Keep(&f.ctx.delivery)
	f.ctx.delivery.Detach()
	slow := s.handling.add(f.msg)
	s.watchers.Go(func() { s.watch(f, slow) }) // Ends with the delivery, at the latest soon after base; finish waits for it.
}

// watch waits for the outcome of a message and ends the delivery, or has it redelivered.
func (s *subscription) watch(f flight, slow *slow) {
	result := s.awaitOutcome(f, slow)
	if s.traces {
		s.traceEnded(f, result.name(f))
	}
	d := *f.ctx.end()
	switch result {
	case outcomeAcked:
		s.settle(d)
	case outcomeClosed: // that is no fault of the message
		s.giveBack(d)
	default:
		if d.Attempt++; s.retry(d, f.ctx) {
			return // it counts as watched until the pump emits it
		}
	}
	s.endWatch(d)
}

// settle ends a delivery that was handled.
func (s *subscription) settle(d dispatch.Delivery) {
	handled := s.handled(d)
	s.inStore(func() { s.member.Settle(d) })
	s.tell(func(set *hook.Set) { set.Handled(handled) })
}

// giveBack returns deliveries to their group.
func (s *subscription) giveBack(ds ...dispatch.Delivery) {
	s.inStore(func() { s.member.Return(ds...) })
}

// endWatch makes room for another message.
func (s *subscription) endWatch(d dispatch.Delivery) {
	s.member.Dismiss(&d)
	s.watched.Add(-1)
	s.notify()
}

// outcome is how a delivery ended.
type outcome int

const (
	outcomeAcked  outcome = iota
	outcomeFailed         // nacked, or no answer within AckWaitTimeout
	outcomeClosed         // the subscription ended before there was an answer
)

// name is what a line of the log calls the outcome.
func (o outcome) name(f flight) string {
	switch {
	case o == outcomeAcked:
		return "acked"
	case o == outcomeClosed:
		return "given back"
	case f.nacked():
		return "nacked"
	}
	return "late"
}

// awaitOutcome waits for the handler's answer.
func (s *subscription) awaitOutcome(f flight, slow *slow) outcome {
	var late <-chan struct{}
	if slow != nil {
		defer s.handling.remove(slow)
		late = slow.late
	}
	select {
	case <-f.msg.Acked():
		return outcomeAcked
	case <-f.msg.Nacked():
	case <-late:
	case <-s.base.Done():
	}
	switch {
	case f.acked():
		return outcomeAcked
	case isClosed(s.base.Done()): // which is why handlers nack then
		return outcomeClosed
	}
	return outcomeFailed
}

// retry queues a nacked message for the pump after the delay that its context says, or its usual one. It returns false
// if the delivery has ended instead: its attempts are exhausted, a member that waits has it, or the group has it back
// because the subscription closes.
func (s *subscription) retry(d dispatch.Delivery, ctx *messageContext) bool {
	if reason := s.exhausted(d); reason != nil {
		s.failAgain(d, reason)
		return false
	}
	delay := s.delayOf(d, ctx)
	s.noteRedelivered(d.Attempt, delay)
	if s.sleep(delay, &d) && !s.member.MustReturn(&d) {
		switch {
		case s.member.HandOver(d):
			return false
		case s.redeliver(d):
			return true
		}
	}
	s.giveBack(d)
	return false
}

// sleep waits before another attempt. It returns false when the message has to go back to its group, or the
// subscription closes and does not answer for it.
func (s *subscription) sleep(delay time.Duration, d *dispatch.Delivery) bool {
	if delay <= 0 {
		return !isClosed(s.closing) || s.outlastsClose(d)
	}
	timer := time.NewTimer(delay)
	defer timer.Stop()
	for closing := false; !closing; {
		recalled := s.recalls.wait()
		if s.member.MustReturn(d) {
			return false
		}
		select {
		case <-timer.C:
			return true
		case <-recalled:
		case <-s.closing:
			closing = true
		}
	}
	if !s.outlastsClose(d) {
		return false
	}
	select {
	case <-timer.C:
		return true
	case <-s.halted:
		return false
	}
}

// delayOf is the delay before a nacked message is delivered again.
func (s *subscription) delayOf(d dispatch.Delivery, ctx *messageContext) time.Duration {
	delay, ok := ctx.redeliverAfter()
	if !ok {
		return s.delay(d.Attempt)
	}
	if limit := s.subscriber.cfg.MaxAge; limit > 0 {
		delay = min(delay, limit-time.Since(d.Received()))
	}
	return delay
}

// delay doubles with each attempt, up to the cap.
func (s *subscription) delay(attempt int) time.Duration {
	delay, limit := s.subscriber.cfg.NackResendSleep, s.subscriber.cfg.NackResendCap
	for ; attempt > 1 && delay < limit; attempt-- {
		delay *= 2
	}
	return min(delay, limit)
}

// redeliver queues a delivery for the pump. It returns false if the pump has stopped.
func (s *subscription) redeliver(d dispatch.Delivery) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return false
	}
	d.Redelivered = true
	s.redeliveries = append(s.redeliveries, d)
	s.notify()
	return true
}

// nextRedelivery returns the next message to emit once more, which counts as watched no longer.
func (p *pump) nextRedelivery() (f flight, ok bool) {
	var back []dispatch.Delivery
	for p.watched.Load() > 0 && !ok {
		d, found := p.popRedelivery()
		if !found {
			break
		}
		p.member.Dismiss(&d)
		if p.member.MustReturn(&d) {
			p.watched.Add(-1)
			back = append(back, d)
			continue
		}
		msg, _, err := p.decode(&d, false)
		if ok = p.emits(err); ok {
			f = p.newFlight(&d, msg)
		} else {
			p.startFailure(d, msg, &UndecodableError{err})
		}
		p.watched.Add(-1)
	}
	if len(back) > 0 {
		p.giveBack(back...)
	}
	return f, ok
}

func (s *subscription) popRedelivery() (d dispatch.Delivery, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.redeliveries) == 0 {
		return d, false
	}
	d, s.redeliveries = s.redeliveries[0], s.redeliveries[1:]
	return d, true
}

// takeKeptRedeliveries returns those of the queue that a connected sender keeps.
func (s *subscription) takeKeptRedeliveries() (kept []dispatch.Delivery) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var unkept []dispatch.Delivery
	for _, d := range s.redeliveries {
		if d.Unkept() {
			unkept = append(unkept, d)
		} else {
			kept = append(kept, d)
		}
	}
	s.redeliveries = unkept
	return kept
}

// endRedeliveries refuses further redeliveries and returns those that are queued.
func (s *subscription) endRedeliveries() []dispatch.Delivery {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopped = true
	close(s.halted)
	return s.redeliveries
}
