package flow

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// fill takes a window's room in claims of n bytes, until it gets no more.
func fill(w *Window, n int) (messages int) {
	for {
		got := w.Take(amount(1, n))
		if got != amount(1, n) {
			w.Release(got)
			return messages
		}
		messages++
	}
}

// Holders that never give back take ever less: there is room for one that comes late, and takes no more than it needs.
func TestBudget_HasRoomBesideHoldersThatAreStuck(t *testing.T) {
	const window, message = 1 << 20, 64 << 10
	b := NewBudget(16 * window)
	for range 20 { // the first 16 could take all of it
		fill(openWindowOf(b, 1<<20, window), message/4)
	}
	prompt := openWindowOf(b, 1<<20, window)
	for range 100 {
		got := prompt.Take(amount(1, message))
		require.Equal(t, amount(1, message), got)
		prompt.Release(got)
	}
}

// Half of the budget is for holders that are there: absent ones, together, wait for what is beyond, and hold up no other.
func TestBudget_AbsentHoldersGetHalf(t *testing.T) {
	const window = 1000
	b := NewBudget(4 * window)
	absent := make([]*Window, 4)
	for i := range absent {
		absent[i] = NewWindow(amount(1000, window), b)
		absent[i].Open()
		fill(absent[i], 10)
	}
	require.Equal(t, 2*window, b.Free())
	var granted []Amount
	claim := &Claim{Want: amount(1, 10), Least: amount(1, 10), Grant: func(a Amount) { granted = append(granted, a) }}
	absent[2].Wait(claim)
	require.Empty(t, granted)
	require.Equal(t, BudgetFull, absent[2].Shortage())
	there := openWindowOf(b, 1000, window)
	require.Equal(t, 100, fill(there, 10), "nor is it behind the absent one that waits")
	absent[0].Consumers(1) // it comes back, and what it holds is no absent one's any more
	require.Len(t, granted, 1)
	absent[0].Consumers(-1)
	require.Equal(t, int64(2*window+10), b.absent)
	absent[3].Wait(claim)
	require.Len(t, granted, 1)
	absent[0].Release(amount(2, 20))
	require.Len(t, granted, 2)
}

// Of an absent holder that is the only one, a message larger than half of the budget must not wait for ever.
func TestBudget_OneLargeMessageOfAnAbsentHolder(t *testing.T) {
	b := NewBudget(100)
	w := NewWindow(amount(10, 100), b)
	w.Open()
	w.SetHungry(true)
	l := newLine(w)
	l.wait("large", amount(1, 80), amount(1, 80))
	require.Equal(t, []string{"large"}, l.granted)
	w.Release(amount(1, 80))
	l.wait("small", amount(1, 40), amount(1, 40))
	l.wait("large again", amount(1, 80), amount(1, 80))
	require.Equal(t, []string{"large", "small"}, l.granted)
	w.Release(amount(1, 40))
	require.Equal(t, []string{"large", "small", "large again"}, l.granted)
}

// A large claim is not starved by small ones of other windows: what becomes free is set aside for it.
func TestBudget_SetsAsideForTheFirst(t *testing.T) {
	b := NewBudget(1000)
	large, small, third := openWindowOf(b, 100, 1000), openWindowOf(b, 100, 1000), openWindowOf(b, 100, 1000)
	require.Equal(t, 17, fill(small, 50))
	l := newLine(large)
	l.wait("large", amount(1, 600), amount(1, 600))
	require.Empty(t, l.granted)
	s := newLine(small)
	for i := range 9 {
		require.Zero(t, third.Take(amount(1, 1)), "it is set aside, also from one that holds nothing")
		small.Release(amount(1, 50))
		require.Zero(t, small.Take(amount(1, 50)), "it is set aside")
		if i == 0 {
			s.wait("small", amount(1, 50), amount(1, 50))
		}
	}
	require.Equal(t, []string{"large"}, l.granted)
	require.Empty(t, s.granted)
	large.Release(amount(1, 600))
	require.Equal(t, []string{"small"}, s.granted)
}

// What a holder has may never come back: as long as it has something, its large claim holds up no other.
func TestBudget_AHolderHoldsUpNoOther(t *testing.T) {
	b := NewBudget(1000)
	stuck, other := openWindowOf(b, 100, 1000), openWindowOf(b, 100, 1000)
	require.Equal(t, 8, fill(stuck, 100))
	l := newLine(stuck)
	l.wait("large", amount(1, 150), amount(1, 150))
	require.Empty(t, l.granted)
	for range 100 {
		got := other.Take(amount(1, 10))
		require.Equal(t, amount(1, 10), got)
		other.Release(got)
	}
	stuck.Release(amount(1, 100))
	require.Equal(t, []string{"large"}, l.granted, "it is the first in line for what is not the reserve")
}

// A claim that is cancelled or that the window has no room for gives up its place in the budget's line.
func TestBudget_CancelledClaimsHoldUpNobody(t *testing.T) {
	b := NewBudget(100)
	holder, first, second := openWindowOf(b, 100, 100), openWindowOf(b, 100, 100), openWindowOf(b, 100, 100)
	require.Equal(t, 7, fill(holder, 12))
	l1, l2 := newLine(first), newLine(second)
	large := l1.wait("large", amount(1, 90), amount(1, 90))
	l2.wait("small", amount(1, 10), amount(1, 10))
	require.Empty(t, l2.granted, "16 are free, and set aside")
	first.Cancel(large)
	require.Equal(t, []string{"small"}, l2.granted)
	l1.wait("large", amount(1, 90), amount(1, 90))
	l3 := newLine(openWindowOf(b, 100, 100))
	l3.wait("small", amount(1, 5), amount(1, 5))
	require.Empty(t, l3.granted)
	first.Close()
	require.Equal(t, []string{"small"}, l3.granted)
}

// While consumers have messages to take, a claim waits for enough. When they have none, what is held may be stuck.
func TestWindow_GivesHungryConsumersWhatThereIs(t *testing.T) {
	w := openWindow(80, 800)
	require.Equal(t, amount(73, 730), w.Take(amount(73, 730)))
	var granted []Amount
	claim := func() *Claim {
		return &Claim{
			Want: amount(20, 200), Enough: amount(10, 100), Least: amount(1, 10),
			Grant: func(a Amount) { granted = append(granted, a) },
		}
	}
	w.Wait(claim())
	require.Empty(t, granted)
	require.Equal(t, WindowFull, w.Shortage())
	require.True(t, w.SetHungry(true))
	w.Serve()
	require.Equal(t, []Amount{amount(7, 70)}, granted)
	w.Wait(claim())
	w.Release(amount(1, 9))
	require.Len(t, granted, 1, "less than the least")
	w.Release(amount(0, 1))
	require.Equal(t, []Amount{amount(7, 70), amount(1, 10)}, granted)
	require.False(t, w.SetHungry(false))
	w.Wait(claim())
	w.Release(amount(9, 90))
	require.Len(t, granted, 2)
	w.Release(amount(1, 10))
	require.Equal(t, amount(10, 100), granted[2])
}

// Whether a holder is absent may show only when it has something: it gets its first message whatever absent ones hold.
func TestBudget_TheFirstMessageShowsWhetherAHolderIsThere(t *testing.T) {
	b := NewBudget(1000)
	gone := b.NewAccount(Absent)
	require.Equal(t, 500, gone.Take(1, 1000, nil))
	fresh := b.NewAccount(Unknown)
	require.Equal(t, 50, fresh.Take(50, 200, nil))
	require.Zero(t, fresh.Take(50, 200, nil))
	require.EqualValues(t, 550, b.absent)
	fresh.SetPresence(Absent)
	require.Zero(t, fresh.Take(50, 200, nil))
	fresh.SetPresence(Present)
	require.EqualValues(t, 500, b.absent)
	require.Equal(t, 200, fresh.Take(50, 200, nil))
	fresh.Release(250)
	fresh.SetPresence(Unknown)
	require.EqualValues(t, 500, b.absent)
	another := b.NewAccount(Absent)
	require.Zero(t, another.Take(50, 200, nil), "nobody has shown that it is there")
}

// Holders that are stuck leave room for the largest message of the next that holds nothing, however much of the budget that is.
func TestBudget_ReservesTheLargestMessage(t *testing.T) {
	const size, message, largest = 48 << 10, 7 << 10, 8 << 10
	b := NewBudget(size)
	b.ReserveFor(largest)
	one, two := b.NewAccount(Present), b.NewAccount(Present)
	for one.Take(message, message, nil)+two.Take(message, message, nil) > 0 {
	}
	require.Equal(t, largest, b.NewAccount(Present).Take(largest, largest, nil))

	b = NewBudget(size)
	b.ReserveFor(size)
	require.Equal(t, size/2, b.NewAccount(Present).Take(1, size, nil), "half of it is for all")
}

// A holder that is stuck has taken as much as its window and its share allow, and what comes last is one message each. So many of them
// leave room for another message of that size: docs/guarantees.md has the numbers.
func TestBudget_StuckHoldersThatItEndures(t *testing.T) {
	const kib, mib = 1 << 10, 1 << 20
	for _, c := range []struct{ limit, window, message, largest, endures int }{
		{256 * mib, 16 * mib, mib, mib, 35}, // the defaults
		{256 * mib, 16 * mib, 100 * kib, mib, 56},
		{256 * mib, 16 * mib, 10 * kib, mib, 75},
		{256 * mib, 16 * mib, kib, mib, 95},
		{64 * mib, 16 * mib, mib, mib, 11},
	} {
		b := NewBudget(c.limit)
		b.ReserveFor(c.largest)
		stuck := 0
		for ; ; stuck++ {
			a := b.NewAccount(Present)
			for held := 0; held+c.message <= c.window && a.Take(c.message, c.message, nil) > 0; {
				held += c.message
			}
			prompt := b.NewAccount(Present)
			if prompt.Take(c.message, c.message, nil) == 0 {
				break
			}
			prompt.Release(c.message)
		}
		require.Equal(t, c.endures, stuck, "messages of %d bytes", c.message)
	}
}
