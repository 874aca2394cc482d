package apisim

import (
	"sync"
	"time"
)

const (
	settleTime = 15 * time.Second // for connections to come back when the network has healed
	drainTime  = 90 * time.Second // for everything to be handled when everybody is well
)

// finish ends a program: the network heals, topics with prompt readers are probed beside those that are stuck, then
// everything is let go, has to drain, and is closed.
func (w *world) finish() {
	w.disturbAiling()
	w.net.heal(w.addresses())
	w.mu.Lock()
	w.noteLocked("HEAL")
	for _, x := range w.subs { // no process is killed any more
		x.atEnd = nil
	}
	w.mu.Unlock()
	w.healed = true
	if !w.p.Shape.Abrupt {
		w.calm()
		time.Sleep(settleTime)
		w.probes()
		w.probeRoute()
		w.untame()
		w.staff()
		w.drain()
		w.drained = time.Now()
		w.checkDrained()
		w.checkMoves()
		w.checkGrowth()
	}
	w.closeEverything()
	w.calm()
	w.untame()
	w.await(60 * time.Second)
	w.checkGroups()
	w.checkCustody()
	if w.net.hot != "" {
		w.violated(13, "an address is dialed in a hot loop"+w.rudeness(), "%s", w.net.hot)
	}
}

func (w *world) untame() {
	if !w.isTame() {
		w.note("TAME")
		close(w.tame)
	}
}

// isTame reports whether what misbehaves has let go.
func (w *world) isTame() bool {
	select {
	case <-w.tame:
		return true
	default:
		return false
	}
}

// await waits until no call is under way that is late.
func (w *world) await(most time.Duration) {
	for end := time.Now().Add(most); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		w.mu.Lock()
		n := len(w.calls)
		w.mu.Unlock()
		if n == 0 {
			return
		}
	}
	for _, c := range w.overdue() {
		w.violated(13, c.name+" does not return"+w.because(c.began), "for %v, with a time-out of %v", time.Since(c.began), c.bound)
	}
}

// drain waits until everything is handled.
func (w *world) drain() {
	begin := time.Now()
	for time.Since(begin) < drainTime && (w.undrained(true) || w.groupsLack()) || time.Since(begin) < settleTime && w.undrained(false) {
		time.Sleep(200 * time.Millisecond)
	}
}

// closeEverything closes all that lives, side by side or in turn, as the seed has it.
func (w *world) closeEverything() {
	w.note("CLOSE")
	r := w.random(77)
	var ends []func()
	for _, s := range w.senders {
		if l := s.life; l != nil && l.how == "" {
			ends = append(ends, func() { w.closeSender(l, 1) })
		}
	}
	for _, x := range w.receivers {
		if l := x.life; l != nil && !l.ended() {
			ends = append(ends, func() { w.closeReceiver(l, r.IntN(2) == 0, 1) })
		}
	}
	r.Shuffle(len(ends), func(i, j int) { ends[i], ends[j] = ends[j], ends[i] })
	sideBySide := r.IntN(3) == 0
	var all sync.WaitGroup
	defer func() { w.within(3*time.Minute, all.Wait) }()
	for _, end := range ends {
		all.Add(1)
		done := make(chan struct{})
		go func() {
			defer all.Done()
			defer close(done)
			end()
		}()
		if sideBySide {
			continue
		}
		select {
		case <-done:
		case <-time.After(60 * time.Second):
		}
	}
}

// within waits for f, but not for ever.
func (w *world) within(most time.Duration, f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
	case <-time.After(most):
	}
}
