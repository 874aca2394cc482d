package flow

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// A window that is closed has given everything back, once, and grants nothing any more.
func TestWindow_CloseGivesEverythingBack(t *testing.T) {
	b := NewBudget(100)
	w := openWindowOf(b, 2, 60)
	require.Equal(t, amount(2, 60), w.Take(amount(2, 60)))
	l := newLine(w)
	l.wait("late", amount(1, 1), amount(1, 1))
	w.Close()
	require.Equal(t, 100, b.Free())
	w.Close()
	w.Release(amount(2, 60))
	w.Open()
	w.Serve()
	require.Equal(t, 100, b.Free())
	require.Empty(t, l.granted)
	require.Zero(t, w.Take(amount(1, 1)))
}

// The streams that share a window may hold half of it together without using it.
func TestWindow_IdleIsPartOfHalf(t *testing.T) {
	w := openWindow(16, 160)
	require.Equal(t, amount(8, 80), w.Idle())
	w.Share(1)
	require.Equal(t, amount(8, 80), w.Idle())
	w.Share(1)
	require.Equal(t, amount(4, 40), w.Idle())
	w.Share(-1)
	require.Equal(t, amount(8, 80), w.Idle())
}

// A window that has no room itself for the next claim is not in the budget's line, where it would hold up others.
func TestWindow_FullOneLeavesTheBudgetsLine(t *testing.T) {
	b := NewBudget(100)
	w, other := openWindowOf(b, 10, 100), openWindowOf(b, 10, 100)
	w.SetHungry(true)
	require.Equal(t, amount(5, 50), w.Take(amount(5, 50)))
	require.NotZero(t, other.Take(amount(1, 37)))
	l := newLine(w)
	first := l.wait("first", amount(1, 20), amount(1, 20))
	l.wait("many", amount(8, 10), amount(8, 10))
	waits, _ := w.account.Waits()
	require.True(t, waits)
	w.Cancel(first)
	requireServed(t, w)
}
