package flow

import (
	"slices"
	"sync"
	"sync/atomic"
)

// Claim is a request for room in a Window.
type Claim struct {
	Want  Amount // the most that is of use
	Least Amount // the least that is of use
	// Grant is called once, with no lock of this package held, when room was reserved: on the goroutine of the call
	// that made it available, such as Wait, Release, Cancel or Open, of this Window or of another one with the same
	// Budget. The room is the claimant's until it calls Release.
	Grant func(Amount)
}

// Window bounds what a topic holds: its messages that are not settled, and the credit that is granted for more. Claims
// are served in order. It is safe for concurrent use.
type Window struct {
	size   Amount
	budget *Budget

	sharers atomic.Int64

	mu      sync.Mutex // guards the fields below; the Budget's lock may be taken while it is held
	free    Amount
	ready   bool // until then it gives nothing
	closed  bool
	waiting []*Claim
}

// NewWindow returns a window of size, which gives no room before Open. What it gives is taken from budget too.
func NewWindow(size Amount, budget *Budget) *Window {
	return &Window{size: size, free: size, budget: budget}
}

// Share adds n, which is 1 or −1, to the number of streams that share the window.
func (w *Window) Share(n int) { w.sharers.Add(int64(n)) }

// Idle is how much each stream that shares the window may hold without using it: all of them together half of the
// window, so that the other half is there for streams with something to send.
func (w *Window) Idle() Amount {
	n := 2 * max(1, int(w.sharers.Load()))
	return Amount{w.size.Messages / n, w.size.Bytes / n}
}

// Take reserves up to want, without waiting. It reserves nothing while claims wait.
func (w *Window) Take(want Amount) Amount {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.ready || len(w.waiting) > 0 {
		return Amount{}
	}
	return w.reserveLocked(Amount{1, 1}, want, nil)
}

// Wait adds a claim to those that wait. Its Grant may be called before Wait returns.
func (w *Window) Wait(c *Claim) {
	c.Least = Amount{max(1, min(c.Least.Messages, w.size.Messages)), max(1, min(c.Least.Bytes, w.size.Bytes))}
	c.Want = Amount{max(c.Want.Messages, c.Least.Messages), max(c.Want.Bytes, c.Least.Bytes)}
	w.mu.Lock()
	w.waiting = append(w.waiting, c)
	w.mu.Unlock()
	w.serve()
}

// Size is the most that the window gives.
func (w *Window) Size() Amount { return w.size }

// Tight reports whether less than a quarter of the window is free.
func (w *Window) Tight() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return 4*w.free.Messages < w.size.Messages || 4*w.free.Bytes < w.size.Bytes
}

// Held is what was reserved and not released.
func (w *Window) Held() Amount {
	w.mu.Lock()
	defer w.mu.Unlock()
	return Amount{w.size.Messages - w.free.Messages, w.size.Bytes - w.free.Bytes}
}

// Cancel removes a claim from those that wait. It may have been granted already.
func (w *Window) Cancel(c *Claim) {
	w.mu.Lock()
	if i := slices.Index(w.waiting, c); i >= 0 {
		w.waiting = slices.Delete(w.waiting, i, i+1)
	}
	w.mu.Unlock()
	w.serve()
}

// Release gives room back. After Close it does nothing.
func (w *Window) Release(a Amount) {
	if a == (Amount{}) {
		return
	}
	w.mu.Lock()
	if w.closed {
		w.mu.Unlock()
		return
	}
	w.free.Messages += a.Messages
	w.free.Bytes += a.Bytes
	idle := len(w.waiting) == 0
	w.mu.Unlock()
	w.budget.release(a.Bytes)
	if !idle {
		w.serve()
	}
}

// Close gives back to the budget all that the window holds. No claim is granted any more.
func (w *Window) Close() {
	w.mu.Lock()
	held := w.size.Bytes - w.free.Bytes
	if w.closed {
		held = 0
	}
	w.closed, w.ready, w.waiting = true, false, nil
	w.mu.Unlock()
	w.budget.release(held)
}

// Open makes the window ready.
func (w *Window) Open() {
	w.mu.Lock()
	w.ready = !w.closed
	w.mu.Unlock()
	w.serve()
}

// serve grants claims in order, as long as there is room.
func (w *Window) serve() {
	for {
		w.mu.Lock()
		if !w.ready || len(w.waiting) == 0 {
			w.mu.Unlock()
			return
		}
		c := w.waiting[0]
		a := w.reserveLocked(c.Least, c.Want, w)
		if a == (Amount{}) {
			w.mu.Unlock()
			return
		}
		w.waiting = w.waiting[1:]
		w.mu.Unlock()
		c.Grant(a)
	}
}

// reserveLocked reserves up to want, or nothing if that is less than least. If it is the budget that has too little,
// starving is served at the next release, unless it is nil.
func (w *Window) reserveLocked(least, want Amount, starving *Window) Amount {
	a := Amount{min(want.Messages, w.free.Messages), min(want.Bytes, w.free.Bytes)}
	if a.Messages < least.Messages || a.Bytes < least.Bytes {
		return Amount{}
	}
	if a.Bytes = w.budget.take(least.Bytes, a.Bytes, starving); a.Bytes == 0 {
		return Amount{}
	}
	w.free.Messages -= a.Messages
	w.free.Bytes -= a.Bytes
	return a
}
