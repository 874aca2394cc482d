package session

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// naive is the plainest set of sequences that can do what a Watermark does.
type naive map[uint64]bool

func (n naive) next() uint64 {
	seq := uint64(1)
	for n[seq] {
		seq++
	}
	return seq
}

func (n naive) add(first, last uint64) (added uint64) {
	for seq := max(first, 1); seq <= last; seq++ {
		if !n[seq] {
			n[seq] = true
			added++
		}
	}
	return added
}

func (n naive) covers(first, last uint64) bool {
	for seq := max(first, 1); seq <= last; seq++ {
		if !n[seq] {
			return false
		}
	}
	return true
}

// hole returns the first run at or after seq that is missing; top is beyond everything in the set.
func (n naive) hole(seq, top uint64) (first, last uint64) {
	first = max(seq, 1)
	for n[first] {
		first++
	}
	for last = first; !n[last+1]; last++ {
		if last >= top {
			return first, ^uint64(0)
		}
	}
	return first, last
}

// pairs lists the runs at or above base.
func (n naive) pairs(base, top uint64) (out []uint64) {
	for seq := base; seq <= top; seq++ {
		if !n[seq] {
			continue
		}
		first := seq
		for n[seq+1] {
			seq++
		}
		out = append(out, first, seq)
	}
	return out
}

func TestWatermark_EqualsANaiveSet(t *testing.T) {
	const span, top = 60, 200
	for seed := range uint64(100) {
		rng := rand.New(rand.NewPCG(seed, 1))
		start := rng.Uint64N(10)
		w, model := NewWatermark(start), naive{}
		if start > 1 {
			model.add(1, start-1)
		}
		for step := range 40 {
			first := rng.Uint64N(span)
			last := first + rng.Uint64N(1+rng.Uint64N(12))
			if rng.IntN(10) == 0 { // an empty run changes nothing
				first, last = last+1, first
			}
			if added, want := w.Add(first, last), model.add(first, last); added != want {
				t.Fatalf("seed %d step %d: Add(%d, %d) is %d, not %d", seed, step, first, last, added, want)
			}
			requireSameSet(t, &w, model, span+20, top)
		}
	}
}

func requireSameSet(t *testing.T, w *Watermark, model naive, span, top uint64) {
	t.Helper()
	next := model.next()
	require.Equal(t, next, w.Next())
	require.Equal(t, len(model)-int(next-1), w.Above())
	require.Equal(t, len(model.pairs(next, top))/2, w.Sparse())
	for seq := range span {
		if w.Has(seq) != (seq == 0 || model[seq]) {
			t.Fatalf("Has(%d) of %+v", seq, *w)
		}
		first, last := w.Hole(seq)
		if wantFirst, wantLast := model.hole(seq, top); first != wantFirst || last != wantLast {
			t.Fatalf("Hole(%d) of %+v: %d to %d, not %d to %d", seq, *w, first, last, wantFirst, wantLast)
		}
	}
	for first := uint64(1); first < span; first += 7 {
		for last := first; last < span; last += 5 {
			if w.Covers(first, last) != model.covers(first, last) {
				t.Fatalf("Covers(%d, %d) of %+v", first, last, *w)
			}
		}
	}
	base := 1 + w.Next()/2
	require.Equal(t, model.pairs(base, top), w.AppendPairs(nil, base), "pairs from %d of %+v", base, *w)
	require.True(t, slices.IsSortedFunc(w.above, func(a, b Range) int { return int(a.First) - int(b.Last) - 2 }),
		"ranges are sorted, apart, and never adjacent: %v", w.above)
}

func TestWatermark_AtTheEndOfItsRange(t *testing.T) {
	const end = ^uint64(0) - 1 // the largest sequence that a Publish can carry
	var w Watermark
	require.Equal(t, uint64(2), w.Add(end-1, end))
	require.Equal(t, uint64(1), w.Next())
	require.Equal(t, end-2, w.Add(1, end-2))
	require.Equal(t, end+1, w.Next())
	require.True(t, w.Covers(1, end))
	require.Zero(t, w.Add(5, end))
}

// Who has seen enough of the holes stops.
func TestWatermark_HolesEndWithTheLoop(t *testing.T) {
	w := NewWatermark(2)
	w.Add(4, 5)
	w.Add(8, 8)
	for first, last := range w.Holes(1, 20) {
		require.Equal(t, []uint64{2, 3}, []uint64{first, last})
		break
	}
}
