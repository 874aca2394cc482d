package outbox

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/store"
)

func TestSeqSet_AgreesWithAMap(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 60 {
		var set seqSet
		model := map[uint64]bool{}
		for range 40 {
			first := rng.Uint64N(60) + 1
			r := store.Range{First: first, Last: first + rng.Uint64N(12)}
			fresh := map[uint64]bool{}
			set.add(r, func(f store.Range) {
				require.LessOrEqual(t, f.First, f.Last)
				for n := f.First; n <= f.Last; n++ {
					require.False(t, model[n] || fresh[n], "%d is not fresh", n)
					fresh[n] = true
				}
			})
			for n := r.First; n <= r.Last; n++ {
				require.Equal(t, !model[n], fresh[n])
				model[n] = true
			}
			checkSet(t, &set, model)
		}
	}
}

func checkSet(t *testing.T, set *seqSet, model map[uint64]bool) {
	t.Helper()
	last := set.through
	for _, r := range set.ranges {
		require.Greater(t, r.First, last+1, "ranges neither touch nor overlap")
		last = r.Last
	}
	for from := uint64(1); from < 80; from++ {
		next := from
		for model[next] {
			next++
		}
		require.Equal(t, next, set.next(from))
		if next != from {
			continue
		}
		limit := from
		for limit < 100 && !model[limit] {
			limit++
		}
		require.Equal(t, limit, set.limit(from, 100))
		missing := uint64(0)
		for n := from; n <= from+15; n++ {
			if !model[n] {
				missing++
			}
		}
		require.Equal(t, missing, set.missing(store.Range{First: from, Last: from + 15}))
	}
}
