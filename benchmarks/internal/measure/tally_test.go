package measure

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// messages makes the first n of one sender.
func messages(t *Tally, sender, n int) [][]byte {
	all := make([][]byte, n)
	for i := range all {
		all[i] = make([]byte, t.Size())
		t.Fill(all[i], sender, uint64(i))
	}
	t.Send(sender, uint64(n))
	return all
}

func TestTally_OfOrderedSenders(t *testing.T) {
	tally := NewTally(2, 110)
	a, b := messages(tally, 0, 3), messages(tally, 1, 2)
	for _, m := range [][]byte{a[0], b[0], a[1], b[1], a[2]} {
		tally.Arrive(m)
	}
	require.EqualValues(t, 5, tally.Sent())
	require.NoError(t, tally.Arrivals().Check(tally.Sent(), true))
	require.EqualValues(t, 3, tally.ArrivedOf(0))
	require.EqualValues(t, 3, tally.SentBy(0))
}

func TestTally_TakesAnyOrderWhereThatIsAllowed(t *testing.T) {
	tally := NewTally(1, TallyBytes)
	all := messages(tally, 0, 5000)
	rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	for i, m := range all {
		tally.ArriveAny(m)
		require.EqualValues(t, i+1, tally.Counted())
	}
	require.NoError(t, tally.Arrivals().Check(tally.Sent(), false))
	require.Error(t, tally.Arrivals().Check(tally.Sent(), true))
}

func TestTally_FindsEveryFault(t *testing.T) {
	for name, fault := range map[string]func(*Tally, [][]byte){
		"the last is missing": func(tally *Tally, all [][]byte) { all[len(all)-1] = nil },
		"one is missing":      func(tally *Tally, all [][]byte) { all[3] = nil },
		"one is repeated":     func(tally *Tally, all [][]byte) { tally.Arrive(all[0]) },
		"one is cut":          func(tally *Tally, all [][]byte) { all[2] = all[2][:50] },
		"one is damaged":      func(tally *Tally, all [][]byte) { all[2][109]++ },
		"one is of nobody":    func(tally *Tally, all [][]byte) { all[2][0] = 7 },
		"one was never sent":  func(tally *Tally, all [][]byte) { tally.Send(0, uint64(len(all)-1)) },
		"two are swapped":     func(tally *Tally, all [][]byte) { all[2], all[3] = all[3], all[2] },
	} {
		t.Run(name, func(t *testing.T) {
			tally := NewTally(1, 110)
			all := messages(tally, 0, 10)
			fault(tally, all)
			for _, m := range all {
				if m != nil {
					tally.Arrive(m)
				}
			}
			err := tally.Arrivals().Check(tally.Sent(), true)
			var failed *TallyError
			require.ErrorAs(t, err, &failed)
		})
	}
}

func TestTally_RepeatedAheadOfAGap(t *testing.T) {
	tally := NewTally(1, 110)
	all := messages(tally, 0, 4)
	for _, i := range []int{2, 2, 0, 1, 3} {
		tally.Arrive(all[i])
	}
	a := tally.Arrivals()
	require.EqualValues(t, 1, a.Repeated)
	require.EqualValues(t, 4, a.Arrived)
	require.EqualValues(t, 4, tally.Counted())
	require.Error(t, a.Check(4, false))
}

func TestTally_OfNothing(t *testing.T) {
	require.Error(t, NewTally(1, 110).Arrivals().Check(0, true))
}

func TestMemory_Measured(t *testing.T) {
	m := Measured()
	require.Positive(t, m.Heap)
	require.Positive(t, m.Stacks)
}
