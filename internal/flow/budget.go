// Package flow bounds what a process holds: a Window what a topic holds, a Budget what all windows hold together. It
// does no I/O and starts no goroutine.
package flow

import (
	"slices"
	"sync"
	"sync/atomic"
)

// Amount is a number of messages and their size in bytes.
type Amount struct{ Messages, Bytes int }

// Budget bounds the bytes that all windows of a process hold together. It is safe for concurrent use. A nil Budget has
// no bound for Take and Release.
type Budget struct {
	free       atomic.Int64
	hasStarved atomic.Bool // starved is not empty; written with mu held

	mu      sync.Mutex // guards starved; no Window's lock may be taken while it is held
	starved []*Window  // those whose first claim waits for bytes, in order
}

// NewBudget returns a budget of bytes.
func NewBudget(bytes int) *Budget {
	b := &Budget{}
	b.free.Store(int64(bytes))
	return b
}

// tryTake takes up to want bytes, or nothing if fewer than least are free. It returns how many.
func (b *Budget) tryTake(least, want int) int {
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

// take is tryTake, but when it takes nothing the next release serves w, unless that is nil.
func (b *Budget) take(least, want int, w *Window) int {
	n := b.tryTake(least, want)
	if n > 0 || w == nil {
		return n
	}
	b.mu.Lock()
	if !slices.Contains(b.starved, w) {
		b.starved = append(b.starved, w)
		b.hasStarved.Store(true)
	}
	b.mu.Unlock()
	return b.tryTake(least, want) // a release before the append did not serve w
}

// release gives bytes back and serves all starved windows: one that needs more than is free holds up no other.
func (b *Budget) release(bytes int) {
	b.free.Add(int64(bytes))
	if !b.hasStarved.Load() {
		return
	}
	b.mu.Lock()
	starved := b.starved
	b.starved = nil
	b.hasStarved.Store(false)
	b.mu.Unlock()
	for _, w := range starved {
		w.serve()
	}
}

// Take takes n bytes, or nothing if they are not free.
func (b *Budget) Take(n int) bool { return b == nil || b.tryTake(n, n) == n }

// Release gives bytes back, and calls Grant of claims that have waited for them: the caller must not hold a lock that
// Grant takes.
func (b *Budget) Release(n int) {
	if b != nil {
		b.release(n)
	}
}
