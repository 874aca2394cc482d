// Package flow bounds what a process holds: a Window what a topic holds, a Budget what all topics hold together. It
// does no I/O and starts no goroutine.
package flow

import (
	"slices"
	"sync"
	"sync/atomic"
)

// Claim is a request for room in a Window.
type Claim struct {
	Want Amount // the most that is of use
	// Enough is what is worth waiting for while consumers still have messages to take: they make room. It is at least
	// Least.
	Enough Amount
	Least  Amount // the least that is of use
	// Grant is called once, with no lock of this package held, when room was reserved: on the goroutine of the call
	// that made it available, such as Wait, Release, Cancel or Open, of this Window or of another one with the same
	// Budget. The room is the claimant's until it calls Release.
	Grant func(Amount)
}

// Window bounds what a topic holds: its messages that are not settled, and the credit that is granted for more. Claims
// are served in order. It is safe for concurrent use.
type Window struct {
	size   Amount
	notify func() // Serve, for account

	sharers atomic.Int64
	hungry  atomic.Bool // the consumers have taken every message

	mu        sync.Mutex // guards the fields below; the Budget's lock may be taken while it is held
	account   *Account
	free      Amount
	consumers int
	ready     bool // until then it gives nothing
	closed    bool
	waiting   []*Claim
}

// NewWindow returns a window of size, which gives no room before Open. What it gives is taken from budget too. While it
// has no consumers it counts as absent there.
func NewWindow(size Amount, budget *Budget) *Window {
	w := &Window{size: size, free: size, account: budget.NewAccount(Absent)}
	w.notify = w.Serve
	return w
}

// Share adds n, which is 1 or −1, to the number of streams that share the window.
func (w *Window) Share(n int) { w.sharers.Add(int64(n)) }

// Idle is how much each stream that shares the window may hold without using it: all of them together half of the
// window, so that the other half is there for streams with something to send.
func (w *Window) Idle() Amount {
	n := 2 * max(1, int(w.sharers.Load()))
	return Amount{w.size.Messages / n, w.size.Bytes / n}
}

// Consumers adds n, which is 1 or −1, to the number of consumers that the topic has.
func (w *Window) Consumers(n int) {
	w.mu.Lock()
	w.consumers += n
	p := Present
	if w.consumers == 0 {
		p = Absent
	}
	w.account.SetPresence(p)
	w.mu.Unlock()
	w.account.Wake()
}

// SetHungry says whether a consumer waits for messages and finds none. While it does, claims get what there is: what is
// held may never be released, such as messages behind one that is stuck. It takes no lock. It tells whether that is
// new: then the caller calls Serve, without its own locks.
func (w *Window) SetHungry(hungry bool) (serve bool) {
	return w.hungry.Load() != hungry && w.hungry.Swap(hungry) != hungry && hungry
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
	c.Least = c.Least.within(Amount{1, 1}, w.size)
	c.Enough = c.Enough.within(c.Least, w.size)
	c.Want = Amount{max(c.Want.Messages, c.Enough.Messages), max(c.Want.Bytes, c.Enough.Bytes)}
	w.mu.Lock()
	w.waiting = append(w.waiting, c)
	w.mu.Unlock()
	w.Serve()
}

func (a Amount) within(least, most Amount) Amount {
	return Amount{max(least.Messages, min(a.Messages, most.Messages)), max(least.Bytes, min(a.Bytes, most.Bytes))}
}

func (a Amount) covers(b Amount) bool { return a.Messages >= b.Messages && a.Bytes >= b.Bytes }

// Shortage says what a Window that serves no claim lacks.
type Shortage int

// The shortages of a Window.
const (
	NoShortage Shortage = iota
	NotReady            // Open was not called yet
	WindowFull
	BudgetFull
)

// Shortage is what the first claim that waits has to wait for.
func (w *Window) Shortage() Shortage {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch waits, _ := w.account.Waits(); {
	case !w.ready:
		return NotReady
	case len(w.waiting) == 0:
		return NoShortage
	case waits:
		return BudgetFull
	}
	return WindowFull
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
	return w.heldLocked()
}

func (w *Window) heldLocked() Amount {
	return Amount{w.size.Messages - w.free.Messages, w.size.Bytes - w.free.Bytes}
}

// Cancel removes a claim from those that wait. It may have been granted already.
func (w *Window) Cancel(c *Claim) {
	w.mu.Lock()
	if i := slices.Index(w.waiting, c); i >= 0 {
		w.waiting = slices.Delete(w.waiting, i, i+1)
	}
	w.mu.Unlock()
	w.Serve()
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
	w.account.Release(a.Bytes)
	idle := len(w.waiting) == 0
	w.mu.Unlock()
	w.account.Wake()
	if !idle {
		w.Serve()
	}
}

// Close gives back to the budget all that the window holds. No claim is granted any more.
func (w *Window) Close() {
	w.mu.Lock()
	if !w.closed {
		w.account.Release(w.heldLocked().Bytes)
	}
	w.closed, w.ready, w.waiting = true, false, nil
	w.account.Leave()
	w.mu.Unlock()
	w.account.Wake()
}

// Open makes the window ready.
func (w *Window) Open() {
	w.mu.Lock()
	w.ready = !w.closed
	w.mu.Unlock()
	w.Serve()
}

// Serve grants claims in order, as long as there is room.
func (w *Window) Serve() {
	for {
		c, a := w.next()
		if c == nil {
			return
		}
		c.Grant(a)
	}
}

// next reserves room for the first claim and removes it. It returns nil if no claim waits, or there is no room.
func (w *Window) next() (c *Claim, a Amount) {
	w.mu.Lock()
	if w.ready && len(w.waiting) > 0 {
		c = w.waiting[0]
		least := c.Enough
		if w.hungry.Load() {
			least = c.Least
		}
		if w.free.covers(least) {
			a = w.reserveLocked(c.Least, c.Want, w.notify)
		} else {
			w.account.Leave()
		}
	} else {
		w.account.Leave()
	}
	if a == (Amount{}) {
		c = nil
	} else {
		w.waiting = w.waiting[1:]
	}
	w.mu.Unlock()
	w.account.Wake()
	return c, a
}

// reserveLocked reserves up to want, or nothing if that is less than least. If it is the budget that has too little,
// notify is called when it has more, unless it is nil.
func (w *Window) reserveLocked(least, want Amount, notify func()) Amount {
	a := Amount{min(want.Messages, w.free.Messages), min(want.Bytes, w.free.Bytes)}
	if !a.covers(least) {
		return Amount{}
	}
	if a.Bytes = w.account.Take(least.Bytes, a.Bytes, notify); a.Bytes == 0 {
		return Amount{}
	}
	w.free.Messages -= a.Messages
	w.free.Bytes -= a.Bytes
	return a
}
