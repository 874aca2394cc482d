package outbox

import (
	"cmp"
	"slices"
	"sort"

	"github.com/buffstreams/watermill-buffstreams/store"
)

// extent is a run of one stream's messages in one segment, in order. Between
// first and last only messages that are settled may be missing.
type extent struct {
	stream      *stream
	segment     *segmentFile
	from        origin
	first, last uint64 // sequences
	lo, hi      uint64 // entries of the log that hold the first and the last of them
	count       uint64 // messages present
	size        int64  // their cost

	live  uint64 // messages present and not settled
	bytes int64  // their cost: size shared out evenly, exact again when live is 0
}

// grow adds a record that lies behind what x holds.
func (x *extent) grow(index, first, count uint64, size int64) {
	if x.count == 0 {
		x.first, x.lo = first, index
	}
	x.last, x.hi = first+count-1, index
	x.count += count
	x.size += size
}

// extentKey is what tells the extents of one segment apart.
type extentKey struct {
	stream uint64
	from   origin
}

// run is what a record adds to an extent.
type run struct {
	stream       uint64
	from         origin
	first, count uint64
	size         int64 // cost
}

// extend adds r, found in entry index, to the extent of f that it belongs to.
func (f *segmentFile) extend(known map[extentKey]*extent, s *stream, index uint64, r run) *extent {
	key := extentKey{r.stream, r.from}
	x := known[key]
	if x == nil {
		x = &extent{stream: s, segment: f, from: r.from}
		known[key] = x
		f.extents = append(f.extents, x)
	}
	x.grow(index, r.first, r.count, r.size)
	return x
}

// stream is the state of one key. It and all that hangs on it is guarded by
// Outbox.mu.
type stream struct {
	id   uint64
	key  store.Key
	dest *destination

	next    uint64 // the sequence to be given out next
	durable uint64 // the first sequence that is not fsynced yet
	settled seqSet
	bytes   int64 // cost of what is pending, not yet durable messages included

	extents []*extent  // with live messages, sorted by first, disjoint
	home    *extent    // the one in the tail that grows, nil if there is none
	recent  []*section // newest durable messages, in memory

	defined bool // its key is in the log
	dirty   bool // settled moved on since it was last saved
	hint    hint
	waiters []waiter
}

// hint is where the reader of a stream left off: sequence seq is in this entry
// or behind it.
type hint struct {
	seq, index uint64
	extent     *extent
}

// destination holds what the streams to one address share.
type destination struct {
	name    string
	streams int
	bytes   int64
	total   *int64 // the same of all destinations
}

func (s *stream) pending() uint64 { return s.settled.missing(store.Range{First: 1, Last: s.next - 1}) }

// addBytes accounts for a change of what is pending.
func (s *stream) addBytes(n int64) {
	s.bytes += n
	s.dest.bytes += n
	*s.dest.total += n
}

// extentAt returns the extent that covers seq, or nil.
func (s *stream) extentAt(seq uint64) *extent {
	i := sort.Search(len(s.extents), func(i int) bool { return s.extents[i].last >= seq })
	if i == len(s.extents) || s.extents[i].first > seq {
		return nil
	}
	return s.extents[i]
}

// attach makes x count, with what is not settled of it. It reports whether
// there is any.
func (s *stream) attach(x *extent) bool {
	x.live = min(s.settled.missing(store.Range{First: x.first, Last: x.last}), x.count)
	if x.live == 0 {
		return false
	}
	x.bytes = share(x.size, x.live, x.count)
	x.segment.live++
	x.segment.bytes += x.bytes
	i, _ := slices.BinarySearchFunc(s.extents, x.first, func(e *extent, seq uint64) int { return cmp.Compare(e.first, seq) })
	s.extents = slices.Insert(s.extents, i, x)
	return true
}

// detach makes x not count any longer.
func (s *stream) detach(x *extent) {
	if i := slices.Index(s.extents, x); i >= 0 {
		s.extents = slices.Delete(s.extents, i, i+1)
		x.segment.live--
		x.segment.bytes -= x.bytes
		x.live, x.bytes = 0, 0
	}
}

// release takes the freshly settled sequences of r off the accounts. It reports
// whether a segment has nothing pending any longer.
func (s *stream) release(r store.Range) (emptied bool) {
	i := sort.Search(len(s.extents), func(i int) bool { return s.extents[i].last >= r.First })
	kept, end := i, i
	for ; end < len(s.extents) && s.extents[end].first <= r.Last; end++ {
		x := s.extents[end]
		n := min(min(x.last, r.Last)-max(x.first, r.First)+1, x.live)
		freed := share(x.bytes, n, x.live)
		x.live -= n
		x.bytes -= freed
		x.segment.bytes -= freed
		s.addBytes(-freed)
		if x.live > 0 {
			s.extents[kept] = x
			kept++
			continue
		}
		x.segment.live--
		emptied = emptied || x.segment.live == 0
	}
	s.extents = slices.Delete(s.extents, kept, end)
	return emptied
}

// share returns n/of of total, all of it when n is of.
func share(total int64, n, of uint64) int64 {
	if n >= of {
		return total
	}
	return int64(float64(total) * (float64(n) / float64(of)))
}
