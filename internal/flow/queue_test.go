package flow

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// holder returns an account that is present and holds so many bytes.
func holder(t *testing.T, b *Budget, held int) *Account {
	a := b.NewAccount(Present)
	if held > 0 {
		require.Equal(t, held, a.Take(held, held, nil))
	}
	return a
}

// await has an account wait for n bytes, and returns how often it was notified.
func await(t *testing.T, a *Account, n int) *int {
	notified := new(int)
	require.Zero(t, a.Take(n, n, func() { *notified++ }))
	return notified
}

// What is free is set aside for the first that holds nothing, whatever waits behind it.
func TestBudget_SetsAsideForTheFirstOfSeveral(t *testing.T) {
	b := NewBudget(1000)
	holder(t, b, 800)
	middle := holder(t, b, 10)
	await(t, holder(t, b, 0), 300)
	await(t, middle, 60)
	await(t, holder(t, b, 0), 300)
	require.Zero(t, middle.Take(10, 10, nil))
}

// One that waits and gives back all that it holds has what is free set aside from then on.
func TestBudget_SetsAsideForOneThatHasGivenBack(t *testing.T) {
	b := NewBudget(1000)
	holder(t, b, 500)
	large, small := holder(t, b, 100), holder(t, b, 5)
	notified := await(t, large, 450)
	require.Equal(t, 20, small.Take(20, 20, nil))
	large.Release(100)
	require.Zero(t, small.Take(20, 20, nil))
	large.Wake()
	require.Equal(t, 1, *notified)
	require.Equal(t, 450, large.Take(450, 450, nil))
}

// All that can have what they wait for are told at once, though none of them has acted yet.
func TestBudget_TellsAllThatCanTake(t *testing.T) {
	b := NewBudget(1000)
	first, second := holder(t, b, 10), holder(t, b, 10)
	stuck := holder(t, b, 855)
	b.free.Add(-45) // no general room is left
	one, two := await(t, first, 20), await(t, second, 20)
	stuck.Release(400)
	stuck.Wake()
	require.Equal(t, []int{1, 1}, []int{*one, *two})
}

// Whatever the order in which they leave, those that wait keep theirs.
func TestBudget_KeepsTheOrderOfThoseThatLeave(t *testing.T) {
	b := NewBudget(1000)
	stuck := holder(t, b, 870)
	all := make([]*Account, 300)
	for i := range all {
		all[i] = b.NewAccount(Present)
		await(t, all[i], 500)
	}
	left := map[int]bool{}
	for _, i := range rand.Perm(len(all))[:290] {
		all[i].Leave()
		left[i] = true
	}
	require.Equal(t, 10, b.waiting.n)
	require.Less(t, len(b.waiting.all), 100, "what left takes no room")
	stuck.Release(800)
	for i, a := range all {
		if left[i] {
			continue
		}
		for k, other := range all[i+1:] {
			if !left[i+1+k] {
				require.Zero(t, other.Take(500, 500, func() {}), "%d is before it", i)
			}
		}
		require.Equal(t, 500, a.Take(500, 500, nil))
		a.Release(500)
	}
	require.False(t, b.queued.Load())
}

// One that asks for more than the budget ever has holds up those behind it no more.
func TestBudget_TooLargeHoldsUpNoOther(t *testing.T) {
	b := NewBudget(1000)
	holder(t, b, 800)
	first, second := holder(t, b, 0), holder(t, b, 0)
	await(t, first, 300)
	notified := await(t, second, 100)
	second.Wake()
	require.Zero(t, *notified)
	await(t, first, 2000)
	first.Wake()
	require.Equal(t, 1, *notified)
}

// What was set aside for one that waits is not while its receiver is away.
func TestBudget_SetsNothingAsideForAbsentHolders(t *testing.T) {
	b := NewBudget(1000)
	holder(t, b, 800)
	waits, other := holder(t, b, 0), holder(t, b, 0)
	await(t, waits, 300)
	require.Zero(t, other.Take(20, 20, nil))
	waits.SetPresence(Absent)
	require.Equal(t, 20, other.Take(20, 20, nil))
	waits.SetPresence(Present)
	require.Zero(t, other.Take(20, 20, nil))
}

// One that waits for all of the budget has it set aside, as it can have that.
func TestBudget_SetsAllOfItAside(t *testing.T) {
	b := NewBudget(1000)
	stuck := holder(t, b, 100)
	notified := await(t, holder(t, b, 0), 1000)
	require.Zero(t, holder(t, b, 0).Take(10, 10, nil))
	stuck.Release(100)
	stuck.Wake()
	require.Equal(t, 1, *notified)
}

// One that waits is told when it can have the least that is of use to it, though it wants more.
func TestBudget_TellsWhenTheLeastIsThere(t *testing.T) {
	b := NewBudget(1000)
	holder(t, b, 875)
	other, a := holder(t, b, 120), holder(t, b, 0)
	notified := 0
	require.Zero(t, a.Take(10, 100, func() { notified++ }))
	other.Release(4)
	other.Wake()
	require.Zero(t, notified)
	other.Release(1)
	other.Wake()
	require.Equal(t, 1, notified)
	require.Equal(t, 10, a.Take(10, 100, nil))
}

// What holders have that are not there is counted while they are not, whichever way their presence changes.
func TestBudget_CountsWhatAbsentHoldersHave(t *testing.T) {
	all := []Presence{Present, Unknown, Absent}
	for _, first := range all {
		for _, second := range all {
			b := NewBudget(1000)
			a := b.NewAccount(first)
			require.Equal(t, 10, a.Take(10, 10, nil))
			for i, p := range []Presence{second, Present, second} {
				a.SetPresence(p)
				a.Release(1)
				absent := 9 - i
				if p == Present {
					absent = 0
				}
				require.EqualValues(t, absent, b.absent, "%v, then %v", first, second)
			}
			require.Equal(t, 993, b.Free())
		}
	}
}
