package outbox

import (
	"sort"

	"github.com/buffstreams/watermill-buffstreams/store"
)

// seqSet is a set of sequences: all up to through, and the ranges above it, which are sorted and neither touch nor
// overlap.
type seqSet struct {
	through uint64
	ranges  []store.Range
}

// add adds r, and calls added, unless that is nil, for each part of r that was not in the set.
func (s *seqSet) add(r store.Range, added func(store.Range)) {
	if added == nil {
		added = func(store.Range) {}
	}
	if r.First <= s.through {
		r.First = s.through + 1
	}
	if r.First > r.Last {
		return
	}
	// ranges[i:j] are those that overlap r or touch it.
	i := sort.Search(len(s.ranges), func(i int) bool { return s.ranges[i].Last+1 >= r.First })
	j, next := i, r.First
	merged := r
	for ; j < len(s.ranges) && s.ranges[j].First <= r.Last+1; j++ {
		old := s.ranges[j]
		if next < old.First {
			added(store.Range{First: next, Last: min(old.First-1, r.Last)})
		}
		next = max(next, old.Last+1)
		merged.First, merged.Last = min(merged.First, old.First), max(merged.Last, old.Last)
	}
	if next <= r.Last {
		added(store.Range{First: next, Last: r.Last})
	}
	s.replace(i, j, merged)
}

// replace replaces ranges[i:j] by r, or raises through if r begins right behind it.
func (s *seqSet) replace(i, j int, r store.Range) {
	if r.First == s.through+1 {
		s.through = r.Last
		s.ranges = append(s.ranges[:0], s.ranges[j:]...)
		return
	}
	if i == j {
		s.ranges = append(s.ranges, store.Range{})
		copy(s.ranges[i+1:], s.ranges[i:])
		s.ranges[i] = r
		return
	}
	s.ranges[i] = r
	s.ranges = append(s.ranges[:i+1], s.ranges[j:]...)
}

// next returns the first sequence from seq on that is not in the set.
func (s *seqSet) next(seq uint64) uint64 {
	seq = max(seq, s.through+1)
	if i := s.search(seq); i < len(s.ranges) && s.ranges[i].First <= seq {
		return s.ranges[i].Last + 1
	}
	return seq
}

// limit returns the first sequence above seq that is in the set, but at most bound.
func (s *seqSet) limit(seq, bound uint64) uint64 {
	if i := s.search(seq); i < len(s.ranges) {
		return min(s.ranges[i].First, bound)
	}
	return bound
}

// missing counts the sequences of r that are not in the set.
func (s *seqSet) missing(r store.Range) uint64 {
	r.First = max(r.First, s.through+1)
	if r.First > r.Last {
		return 0
	}
	n := r.Last - r.First + 1
	for i := s.search(r.First); i < len(s.ranges) && s.ranges[i].First <= r.Last; i++ {
		n -= min(s.ranges[i].Last, r.Last) - max(s.ranges[i].First, r.First) + 1
	}
	return n
}

// search returns the place of the first range that ends at seq or above.
func (s *seqSet) search(seq uint64) int {
	return sort.Search(len(s.ranges), func(i int) bool { return s.ranges[i].Last >= seq })
}
