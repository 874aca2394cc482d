package buffstreams

import (
	"time"

	"github.com/buffstreams/watermill-buffstreams/internal/dispatch"
)

// startWatcher gives a message that is slow or nacked a goroutine of its own.
func (s *subscription) startWatcher(f flight) {
	s.watched.Add(1)
	s.wg.Go(func() { s.watch(f) }) // Ends with the delivery, at the latest when base is cancelled; finish waits for it.
}

// watch waits for the outcome of a message and ends the delivery, or has it redelivered.
func (s *subscription) watch(f flight) {
	acked := s.awaitOutcome(f)
	d := f.ctx.end()
	if acked {
		s.member.Settle(d)
	} else if d.Attempt++; s.retry(d) {
		return // it counts as watched until the pump emits it
	}
	s.endWatch()
}

// endWatch makes room for another message.
func (s *subscription) endWatch() {
	s.watched.Add(-1)
	s.notify()
}

// awaitOutcome waits for the handler's answer. It returns false for a Nack, and when the time for an answer is over.
func (s *subscription) awaitOutcome(f flight) (acked bool) {
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

// retry queues a nacked message for the pump after its delay. It returns false if the delivery has ended instead: its
// attempts are exhausted, a member that waits has it, or the group has it back because the subscription closes.
func (s *subscription) retry(d dispatch.Delivery) bool {
	if reason := s.exhausted(d); reason != nil {
		msg, _ := s.unmarshal(d)
		s.fail(d, msg, reason)
		return false
	}
	if s.sleep(s.delay(d.Attempt)) {
		switch {
		case s.member.HandOver(d):
			return false
		case s.redeliver(d):
			return true
		}
	}
	s.member.Return(d)
	return false
}

// sleep waits before another attempt. It returns false when the subscription closes.
func (s *subscription) sleep(delay time.Duration) bool {
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
func (s *subscription) nextRedelivery() (f flight, ok bool) {
	for s.watched.Load() > 0 && !ok {
		d, found := s.popRedelivery()
		if !found {
			return f, false
		}
		if msg, decoded := s.decode(d); decoded {
			f, ok = s.newFlight(d, msg), true
		}
		s.watched.Add(-1)
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

// endRedeliveries refuses further redeliveries and returns those that are queued.
func (s *subscription) endRedeliveries() []dispatch.Delivery {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopped = true
	return s.redeliveries
}
