package receiver

import "time"

// armIdleTimerLocked has the streams of publishers that are gone looked for in a while.
func (r *Receiver) armIdleTimerLocked() {
	if r.idleTimer == nil && !r.draining && r.cfg.ForgetIdleAfter > 0 {
		r.idleTimer = time.AfterFunc(r.cfg.ForgetIdleAfter/4, r.forgetIdle) // Drain stops it
	}
}

// forgetIdle forgets the streams of which everything is settled, and whose publishers have been away for
// ForgetIdleAfter: those that were killed do not release theirs.
func (r *Receiver) forgetIdle() {
	defer r.tellForgotten()
	defer r.tellUnheard()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.idleTimer = nil
	if r.draining {
		return
	}
	before := time.Now().Add(-r.cfg.ForgetIdleAfter)
	r.evictLocked(func(s *stream) bool { return s.awaySince(before) && s.abandoned() },
		"Publishers that have been away for long were forgotten, and may duplicate when they return")
	if len(r.publishers) > 0 {
		r.armIdleTimerLocked()
	}
}

func (r *Receiver) stopIdleTimerLocked() {
	if r.idleTimer != nil {
		r.idleTimer.Stop()
		r.idleTimer = nil
	}
}

// awaySince tells whether the stream has had no connection since a moment.
func (s *stream) awaySince(moment time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.conn == nil && !s.detached.After(moment)
}
