package session

import (
	"iter"
	"slices"

	"github.com/buffstreams/watermill-buffstreams/store"
)

// Range is a run of sequences, both ends included.
type Range = store.Range

// Watermark is a set of sequences: all below Next, and ranges above it. The zero value holds sequence 0 alone, which no
// message has.
type Watermark struct {
	next  uint64
	above []Range // sorted; neither overlapping nor adjacent to each other or to next
}

// NewWatermark returns the set of every sequence below next.
func NewWatermark(next uint64) Watermark { return Watermark{next: next} }

// Clone returns a copy that shares no memory.
func (w *Watermark) Clone() Watermark { return Watermark{next: w.next, above: slices.Clone(w.above)} }

// Next is the lowest sequence that is not in the set.
func (w *Watermark) Next() uint64 { return max(w.next, 1) }

// End is one more than the largest sequence in the set.
func (w *Watermark) End() uint64 {
	if n := len(w.above); n > 0 {
		return w.above[n-1].Last + 1
	}
	return w.Next()
}

// Sparse is the number of ranges above Next.
func (w *Watermark) Sparse() int { return len(w.above) }

// Above is the number of sequences in the set above Next.
func (w *Watermark) Above() (n int) {
	for _, r := range w.above {
		n += int(r.Last - r.First + 1)
	}
	return n
}

// Has tells whether seq is in the set.
func (w *Watermark) Has(seq uint64) bool { return w.Covers(seq, seq) }

// Covers tells whether all of first to last are in the set.
func (w *Watermark) Covers(first, last uint64) bool {
	if last < w.Next() {
		return true
	}
	i := w.search(first)
	return i < len(w.above) && w.above[i].First <= max(first, w.Next()) && last <= w.above[i].Last
}

// search returns the index of the first range above that ends at or after seq.
func (w *Watermark) search(seq uint64) int {
	i, _ := slices.BinarySearchFunc(w.above, seq, func(r Range, s uint64) int {
		if r.Last < s {
			return -1
		}
		return 1
	})
	return i
}

// Add adds first to last to the set and returns how many of them are new.
func (w *Watermark) Add(first, last uint64) uint64 {
	first = max(first, w.Next())
	if last < first {
		return 0
	}
	if first == w.Next() && len(w.above) == 0 { // the usual case: in order
		w.next = last + 1
		return last - first + 1
	}
	return w.addSparse(first, last)
}

// addSparse merges the run with every range that it overlaps or touches.
func (w *Watermark) addSparse(first, last uint64) uint64 {
	added := last - first + 1
	from := w.search(first - 1)
	to, merged := from, Range{First: first, Last: last}
	for ; to < len(w.above) && w.above[to].First <= last+1; to++ {
		r := w.above[to]
		added -= min(r.Last, last) - max(r.First, first) + 1 // 0 where they only touch
		merged = Range{First: min(merged.First, r.First), Last: max(merged.Last, r.Last)}
	}
	w.above = slices.Replace(w.above, from, to, merged)
	if w.above[0].First == w.Next() {
		w.next = w.above[0].Last + 1
		w.above = slices.Delete(w.above, 0, 1)
	}
	return added
}

// Hole returns the first run at or after seq that is not in the set. If nothing of the set is above it, last is the
// largest uint64.
func (w *Watermark) Hole(seq uint64) (first, last uint64) {
	first = max(seq, w.Next())
	i := w.search(first)
	if i < len(w.above) && w.above[i].First <= first {
		first = w.above[i].Last + 1
		i++
	}
	if i < len(w.above) {
		return first, w.above[i].First - 1
	}
	return first, ^uint64(0)
}

// Holes yields the runs of sequences from first on and below end that are not in the set, in order. The set must not
// change meanwhile.
func (w *Watermark) Holes(first, end uint64) iter.Seq2[uint64, uint64] {
	return func(yield func(first, last uint64) bool) {
		for first < end {
			lo, hi := w.Hole(first)
			if hi = min(hi, end-1); lo > hi || !yield(lo, hi) {
				return
			}
			first = hi + 1
		}
	}
}

// AppendPairs appends pairs of first and last: for the run from base to Next, and for each range above.
func (w *Watermark) AppendPairs(dst []uint64, base uint64) []uint64 {
	if base < w.Next() {
		dst = append(dst, base, w.Next()-1)
	}
	for _, r := range w.above {
		dst = append(dst, r.First, r.Last)
	}
	return dst
}
