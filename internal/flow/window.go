package flow

import (
	"slices"
	"sync"
	"sync/atomic"
)

// Amount is a number of messages and their size in bytes.
type Amount struct{ Messages, Bytes int }

// Budget bounds the bytes that all windows of a process hold together. It is safe for concurrent use.
//
// mu guards starved. A window's lock may be held when mu is taken, never the other way round.
type Budget struct {
	free   atomic.Int64
	hungry atomic.Bool // starved is not empty

	mu      sync.Mutex
	starved []*Window // those whose first claim waits for bytes to come back, in that order
}

// NewBudget returns a budget of so many bytes.
func NewBudget(bytes int) *Budget {
	b := &Budget{}
	b.free.Store(int64(bytes))
	return b
}

// try takes up to want bytes, and nothing when it cannot have at least least.
func (b *Budget) try(least, want int) int {
	for {
		free := b.free.Load()
		n := min(int64(want), free)
		if n < int64(least) || n <= 0 {
			return 0
		}
		if b.free.CompareAndSwap(free, free-n) {
			return int(n)
		}
	}
}

// take is like try. When there is nothing to have, release will serve w, unless that is nil.
func (b *Budget) take(least, want int, w *Window) int {
	n := b.try(least, want)
	if n > 0 || w == nil {
		return n
	}
	b.mu.Lock()
	if !slices.Contains(b.starved, w) {
		b.starved = append(b.starved, w)
		b.hungry.Store(true)
	}
	b.mu.Unlock()
	return b.try(least, want) // who released until now did not know of w
}

// release gives bytes back and serves those who wait for them. Those who need more than there is hold up nobody.
func (b *Budget) release(bytes int) {
	b.free.Add(int64(bytes))
	if !b.hungry.Load() {
		return
	}
	b.mu.Lock()
	starved := b.starved
	b.starved = nil
	b.hungry.Store(false)
	b.mu.Unlock()
	for _, w := range starved {
		w.serve()
	}
}

// Take takes all of n bytes or nothing. A nil Budget has no bound.
func (b *Budget) Take(n int) bool { return b == nil || b.try(n, n) == n }

// Release gives bytes back. Windows that wait for them are served: it is called with no lock held that a Grant takes.
func (b *Budget) Release(n int) {
	if b != nil {
		b.release(n)
	}
}

// Claim waits for room in a Window.
type Claim struct {
	Want  Amount // more is of no use
	Least Amount // less is of no use
	// Grant is called once, with no lock held, when room was reserved. Whoever gets it owns the room.
	Grant func(Amount)
}

// Window bounds what a topic holds: the messages that are not settled, and the credit that is granted for more. It gives
// room in the order in which it was asked for. It is safe for concurrent use.
type Window struct {
	size   Amount
	budget *Budget

	sharers atomic.Int64

	mu      sync.Mutex
	free    Amount
	ready   bool // nothing is given before
	closed  bool
	waiting []*Claim
}

// NewWindow returns a window that is not ready. Its room counts against budget as well.
func NewWindow(size Amount, budget *Budget) *Window {
	return &Window{size: size, free: size, budget: budget}
}

// Share notes that one more, or with −1 one less, gets room from the window.
func (w *Window) Share(n int) { w.sharers.Add(int64(n)) }

// Idle is how much each of those who share the window may hold without using it: all of them together half of it, so that
// there is room for those who have something to send.
func (w *Window) Idle() Amount {
	n := 2 * max(1, int(w.sharers.Load()))
	return Amount{w.size.Messages / n, w.size.Bytes / n}
}

// Take reserves up to want at once, without waiting in line. It gives nothing while others wait.
func (w *Window) Take(want Amount) Amount {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.ready || len(w.waiting) > 0 {
		return Amount{}
	}
	return w.reserve(Amount{1, 1}, want, nil)
}

// Wait puts a claim in line.
func (w *Window) Wait(c *Claim) {
	c.Least = Amount{max(1, min(c.Least.Messages, w.size.Messages)), max(1, min(c.Least.Bytes, w.size.Bytes))}
	c.Want = Amount{max(c.Want.Messages, c.Least.Messages), max(c.Want.Bytes, c.Least.Bytes)}
	w.mu.Lock()
	w.waiting = append(w.waiting, c)
	w.mu.Unlock()
	w.serve()
}

// Held is what was given and has not come back.
func (w *Window) Held() Amount {
	w.mu.Lock()
	defer w.mu.Unlock()
	return Amount{w.size.Messages - w.free.Messages, w.size.Bytes - w.free.Bytes}
}

// Cancel takes a claim out of line. It may have been granted already.
func (w *Window) Cancel(c *Claim) {
	w.mu.Lock()
	for i, other := range w.waiting {
		if other == c {
			w.waiting = append(w.waiting[:i], w.waiting[i+1:]...)
			break
		}
	}
	w.mu.Unlock()
	w.serve()
}

// Release gives room back.
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

// Close gives back to the budget whatever the window holds. Nothing is granted any more, and Release has no effect.
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

// serve grants the claims at the head of the line as long as there is room.
func (w *Window) serve() {
	for {
		w.mu.Lock()
		if !w.ready || len(w.waiting) == 0 {
			w.mu.Unlock()
			return
		}
		c := w.waiting[0]
		a := w.reserve(c.Least, c.Want, w)
		if a == (Amount{}) {
			w.mu.Unlock()
			return
		}
		w.waiting = w.waiting[1:]
		w.mu.Unlock()
		c.Grant(a)
	}
}

// reserve takes at least least and up to want, or nothing: starving, if not nil, is served when the budget frees. w.mu is
// held.
func (w *Window) reserve(least, want Amount, starving *Window) Amount {
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
