package outbox

import (
	"math/rand/v2"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/storage/internal/testenv"
	"github.com/buffstreams/watermill-buffstreams/store"
)

// TestRelocation_AgreesWithAModel appends to several streams and settles at random, such that segments hold a few
// messages of each, then copies of these, and copies of copies. One stream is forgotten now and then, also while a
// relocation copies it.
func TestRelocation_AgreesWithAModel(t *testing.T) {
	for seed := range uint64(2 / testenv.Stride(2)) {
		synctest.Test(t, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 5))
			d := newMemDisk(1)
			cfg := d.config()
			cfg.CacheBytes = -1
			o := open(t, cfg)
			keys := []store.Key{orders, events, bills}
			next, settled, copied := make([]uint64, len(keys)), make([]seqSet, len(keys)), false
			for round := range 60 {
				for range 30 {
					i := rng.IntN(len(keys))
					count := 1 + rng.Uint64N(6)
					fill(t, o, keys[i], next[i]+1, next[i]+count, count)
					next[i] += count
				}
				for i, k := range keys {
					for range 40 {
						first := 1 + rng.Uint64N(next[i]+1)
						if rng.IntN(3) > 0 {
							first = max(first, next[i]-min(next[i], 100))
						}
						r := store.Range{First: first, Last: min(next[i], first+rng.Uint64N(12))}
						require.NoError(t, o.Settle(k, 0, r))
						settled[i].add(r, nil)
					}
				}
				if last := len(keys) - 1; round%7 == 6 {
					require.NoError(t, o.Settle(keys[last], next[last]))
					require.NoError(t, o.Forget(bg, keys[last]))
					next[last], settled[last] = 0, seqSet{}
				}
				if round%10 == 9 {
					o = reopen(t, o, cfg)
				}
				synctest.Wait()
				checkIndex(t, o)
				for i, k := range keys {
					if next[i] > 0 {
						require.Equal(t, pendingOf(&settled[i], next[i]), readAll(t, o, k, 1, 200+rng.IntN(2000)), "round %d", round)
					}
				}
				copied = copied || hasCopiesOfCopies(o, len(keys))
			}
			require.True(t, copied, "copies are copied")
			require.NoError(t, o.Close())
		})
	}
}

// pendingOf returns the sequences up to last that are not in settled.
func pendingOf(settled *seqSet, last uint64) (pending []uint64) {
	for seq := settled.next(1); seq <= last; seq = settled.next(seq + 1) {
		pending = append(pending, seq)
	}
	return pending
}

// hasCopiesOfCopies tells whether a copy is of an extent behind the first of each stream in its segment.
func hasCopiesOfCopies(o *Outbox, streams int) bool {
	for _, f := range o.index.segments {
		for _, x := range f.extents {
			if x.origin.part >= uint64(streams) {
				return true
			}
		}
	}
	return false
}

// TestRelocation_OfAStreamThatIsForgotten forgets one stream before a step of a relocation, and one while the copies of
// that step are written.
func TestRelocation_OfAStreamThatIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newMemDisk(1)
		cfg := d.config()
		cfg.CacheBytes = -1
		o := open(t, cfg)
		var settled []store.Range
		want := []uint64{1}
		for n := uint64(1); n <= 3000; n += 20 {
			for _, k := range []store.Key{orders, events, bills} {
				fill(t, o, k, n, n+19, 20)
			}
			settled = append(settled, store.Range{First: n + 1, Last: n + 19})
			want = append(want, n+20)
		}
		want = want[:len(want)-1]
		for _, k := range []store.Key{orders, events, bills} {
			require.NoError(t, o.Settle(k, 0, settled...)) // and no segment is empty, so that the committer has nothing to do
		}
		synctest.Wait()
		o.startRelocation()
		require.NotNil(t, o.relocation)
		source := o.relocation.source.info.ID
		forget := func(k store.Key) {
			require.NoError(t, o.Settle(k, 3000))
			_, err := o.enqueueForget(k)
			require.NoError(t, err)
		}
		forget(events)
		d.gate = func() { d.gate = nil; forget(bills) }
		require.NoError(t, o.relocate())
		require.NotContains(t, o.index.segments, source)
		for range 2 {
			checkIndex(t, o)
			require.Len(t, o.Streams(), 1)
			require.Equal(t, o.Streams()[0].Bytes, o.Stats().Bytes)
			require.Equal(t, want, readAll(t, o, orders, 1, 1000))
			o = reopen(t, o, cfg)
		}
		require.NoError(t, o.Close())
	})
}
