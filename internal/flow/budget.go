package flow

import (
	"sync"
	"sync/atomic"
)

// Amount is a number of messages and their size in bytes.
type Amount struct{ Messages, Bytes int }

// Budget bounds the bytes that all holders of a process have together. Each holder has an Account. It is safe for
// concurrent use.
//
// No holder can be made to give back what it holds, so the last part of the budget, the reserve, is for holders that
// have little: each of them at most a part of what is free. Holders that are stuck take ever smaller parts of it, and
// leave room for those that come after them.
//
// Accounts that wait are served in the order of asking. What is free is set aside for the first that waits and holds
// nothing: others do not get it meanwhile. One that holds something holds up no other, as it may be stuck; where its
// consumers are prompt, it soon holds nothing.
type Budget struct {
	size    int64
	reserve int64
	free    atomic.Int64
	queued  atomic.Bool // waiting is not empty; written with mu held
	changed atomic.Bool // since next looked: one that waits may have become able to take; not what an account does that joins

	mu      sync.Mutex // guards the fields below and what the docs of Account say; no other lock is taken while it is held
	absent  int64      // bytes that accounts hold which are not Present
	waiting queue
}

const (
	// reservePart is the part of a budget that is its reserve, unless ReserveFor asks for more.
	reservePart = 8
	// sharePart is the part of what is free that an account may hold where only the reserve is left.
	sharePart = 8
	// absentPart is the part of a budget that accounts which are not Present may hold together.
	absentPart = 2
)

// NewBudget returns a budget of bytes.
func NewBudget(bytes int) *Budget {
	b := &Budget{size: int64(bytes), reserve: int64(bytes) / reservePart}
	b.free.Store(int64(bytes))
	return b
}

// ReserveFor has the reserve hold one message of so many bytes, as far as half of the budget allows: else holders that
// take from what is not the reserve could leave less than the next message of all others needs. It is called before the
// first NewAccount.
func (b *Budget) ReserveFor(bytes int) {
	b.reserve = max(b.reserve, min(int64(bytes), b.size/2))
}

// Free is the number of bytes that no account holds.
func (b *Budget) Free() int { return int(b.free.Load()) }

// Presence says whether the receiver of what a holder has is there.
type Presence int

// The presences of a holder.
const (
	Present Presence = iota
	Unknown          // it shows when the holder has something
	Absent
)

// Account is what one holder has of a Budget. The holder has a lock under which it calls Take, Release, SetPresence and
// Leave. A nil *Account has no bound.
type Account struct {
	budget   *Budget
	held     atomic.Int64 // written with the holder's lock held
	presence Presence     // written with the holder's lock and Budget.mu held

	waits bool // in Budget.waiting; written with the holder's lock and Budget.mu held

	// Guarded by Budget.mu.
	ticket   uint64 // its place among those that wait; 0: it does not
	spot     int    // its place in queue.empty, and one more; 0: it is not there
	notify   func()
	need     int64 // the least that it waits for
	notified bool  // it can have that, and was told so
}

// NewAccount returns an account that holds nothing. Accounts that are not Present together get at most half of the
// budget, but for the first message of each of which it is Unknown. The account of a nil *Budget has no bound.
func (b *Budget) NewAccount(p Presence) *Account {
	if b == nil {
		return nil
	}
	return &Account{budget: b, presence: p}
}

// Take takes up to want bytes, or nothing if it cannot have least. It returns how many. If that is 0, the account
// waits, unless notify is nil: notify is called, with no lock of this package held, when another Take with the same
// least can succeed, by the call that makes it possible. An account that waited and does not any more calls Wake after
// its holder's lock was released.
func (a *Account) Take(least, want int, notify func()) int {
	if a == nil {
		return want
	}
	b := a.budget
	if a.presence == Present && !b.queued.Load() {
		if n := b.takeGeneral(int64(least), int64(want)); n > 0 {
			a.held.Add(n)
			return int(n)
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	n := b.takeLocked(a, int64(least), int64(want))
	switch {
	case n > 0:
		b.dequeueLocked(a)
	case notify != nil:
		if a.waits {
			b.changed.Store(true) // it may hold up others no more
		} else {
			b.waiting.join(a)
			b.queued.Store(true)
			// A Release that did not see that has given its bytes back before, or after this.
			if n = b.takeLocked(a, int64(least), int64(want)); n > 0 {
				b.dequeueLocked(a)
				return int(n)
			}
		}
		a.notify, a.need, a.notified = notify, int64(least), false
		b.sortLocked(a)
	}
	return int(n)
}

// takeGeneral takes from what is not the reserve.
func (b *Budget) takeGeneral(least, want int64) int64 {
	for {
		free := b.free.Load()
		n := min(want, free-b.reserve)
		if n < least || n <= 0 {
			return 0
		}
		if b.free.CompareAndSwap(free, free-n) {
			return n
		}
	}
}

// takeLocked takes up to want bytes for a, or nothing.
func (b *Budget) takeLocked(a *Account, least, want int64) int64 {
	behind, last := b.lineLocked(a)
	if last {
		return 0
	}
	for {
		free := b.free.Load()
		n := b.shareLocked(a, free, least, want, behind)
		if n <= 0 {
			return 0
		}
		if b.free.CompareAndSwap(free, free-n) {
			a.held.Add(n)
			if a.presence != Present {
				b.absent += n
			}
			return n
		}
	}
}

// lineLocked tells whether present accounts wait that have asked before a, and whether what is free is set aside for
// one of them.
func (b *Budget) lineLocked(a *Account) (behind, setAside bool) {
	if len(b.waiting.empty) > 0 && b.waiting.empty[0].isBefore(a) {
		return true, true
	}
	for _, other := range b.waiting.all {
		switch {
		case other == nil:
		case !other.isBefore(a):
			return false, false
		case b.holdsUpLocked(other):
			return true, false
		}
	}
	return false, false
}

// sortLocked puts an account that waits where it belongs in the line, or takes it out there, after a change of it.
func (b *Budget) sortLocked(a *Account) {
	b.waiting.setEmpty(a, a.waits && a.held.Load() == 0 && b.holdsUpLocked(a))
}

// holdsUpLocked tells whether those behind an account that waits have to wait too.
func (b *Budget) holdsUpLocked(a *Account) bool {
	return (a.presence == Present || a.presence == Unknown && a.held.Load() == 0) && a.need <= b.size
}

// shareLocked is how much of what is free a may take, between least and want; 0 if it may not.
func (b *Budget) shareLocked(a *Account, free, least, want int64, behind bool) int64 {
	held := a.held.Load()
	if a.presence != Present {
		room := b.size/absentPart - b.absent
		if b.absent == 0 || a.presence == Unknown && held == 0 { // the former for a large message of the only one
			room = max(room, least)
		}
		want = min(want, room)
	}
	share := free/sharePart - held
	if !behind {
		share = max(share, free-b.reserve)
	}
	if held == 0 && least <= free {
		share = max(share, least)
	}
	if n := min(want, share); n >= least {
		return n
	}
	return 0
}

func (b *Budget) dequeueLocked(a *Account) {
	if a.waits {
		b.changed.Store(true)
		b.waiting.leave(a)
		b.queued.Store(b.waiting.n > 0)
	}
}

// Release gives bytes back. The holder calls Wake after it has released its lock.
func (a *Account) Release(bytes int) {
	if a != nil && bytes != 0 { // most calls of a sender give nothing back: this much is inlined
		a.release(int64(bytes))
	}
}

func (a *Account) release(n int64) {
	b := a.budget
	if a.presence == Present && !a.waits {
		a.held.Add(-n)
		b.free.Add(n)
		if b.queued.Load() {
			b.changed.Store(true)
		}
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if a.presence != Present {
		b.absent -= n
	}
	a.held.Add(-n)
	b.free.Add(n)
	b.changed.Store(true)
	b.sortLocked(a)
}

// SetPresence changes the presence of the holder. The holder calls Wake after it has released its lock.
func (a *Account) SetPresence(p Presence) {
	if a == nil || a.presence == p {
		return
	}
	a.budget.mu.Lock()
	defer a.budget.mu.Unlock()
	switch held := a.held.Load(); {
	case a.presence == Present:
		a.budget.absent += held
	case p == Present:
		a.budget.absent -= held
	}
	a.presence, a.notified = p, false
	a.budget.changed.Store(true)
	a.budget.sortLocked(a)
}

// Leave ends the account's wait. The holder calls Wake after it has released its lock.
func (a *Account) Leave() {
	if a == nil || !a.budget.queued.Load() {
		return
	}
	a.budget.mu.Lock()
	defer a.budget.mu.Unlock()
	a.budget.dequeueLocked(a)
}

// Waits tells whether the account waits for the budget, and whether it is not Present.
func (a *Account) Waits() (waits, asAbsent bool) {
	if a == nil {
		return false, false
	}
	a.budget.mu.Lock()
	defer a.budget.mu.Unlock()
	return a.waits, a.presence != Present
}

// Wake notifies the accounts that wait and can have what they need. The caller must not hold a lock that a notify
// takes.
func (a *Account) Wake() {
	if a != nil && a.budget.queued.Load() {
		a.budget.wake()
	}
}

func (b *Budget) wake() {
	for b.queued.Load() {
		notify := b.next()
		if notify == nil {
			return
		}
		notify()
	}
}

// next returns the notify of the first account that waits, can have what it needs, and does not know that.
func (b *Budget) next() func() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.changed.Swap(false) { // before it looks: what changes meanwhile is looked at again
		return nil
	}
	behind, free := false, b.free.Load()
	for _, a := range b.waiting.all {
		if a == nil {
			continue
		}
		switch n := b.shareLocked(a, free, a.need, a.need, behind); {
		case n > 0 && !a.notified:
			a.notified = true
			b.changed.Store(true) // there may be others
			return a.notify
		case b.holdsUpLocked(a):
			if behind = true; a.held.Load() == 0 { // what is free is set aside for it
				return nil
			}
		}
	}
	return nil
}
