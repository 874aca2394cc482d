package outbox

import (
	"cmp"
	"slices"
	"sort"
	"time"

	"github.com/buffstreams/watermill-buffstreams/store"
)

// stream is the state of one key, and part of the index.
type stream struct {
	id          uint64
	key         store.Key
	index       *index
	destination *destination

	next    uint64 // the sequence that the next message gets
	durable uint64 // the lowest sequence that is not fsynced
	handed  uint64 // no message from this sequence on was read since Open, nor there before
	settled seqSet

	openings []store.Opening // see there; never nil, and not modified after Open

	bytes int64 // cost of the pending messages, including those that are not durable yet

	extents    []*extent  // those with pending messages, in order, without overlap
	tailExtent *extent    // the one that new messages extend, or nil
	recent     []*section // newest durable messages, in the cache

	defined bool // its key is in the log
	unsaved bool // more messages are settled than the disk knows
	hint    hint
	waiters []waiter
	marks   []mark        // see noteAge
	spacing time.Duration // of marks, at least
}

// hint is where the reader of a stream stopped: message seq is in the given entry of the extent, or behind it.
type hint struct {
	extent     *extent
	entry, seq uint64
}

func (s *stream) pending() uint64 { return s.settled.missing(store.Range{First: 1, Last: s.next - 1}) }

// addBytes adds n to the cost of what is pending: of the stream, of its destination, and of all.
func (s *stream) addBytes(n int64) {
	s.bytes += n
	s.destination.bytes += n
	s.index.bytes += n
}

// extentAt returns the extent that covers seq, or nil.
func (s *stream) extentAt(seq uint64) *extent {
	i := s.searchExtent(seq)
	if i == len(s.extents) || s.extents[i].first > seq {
		return nil
	}
	return s.extents[i]
}

// searchExtent returns the place of the first extent that ends at seq or above.
func (s *stream) searchExtent(seq uint64) int {
	return sort.Search(len(s.extents), func(i int) bool { return s.extents[i].last >= seq })
}

// attach enters x, with its messages that are not settled. It reports whether there are any.
func (s *stream) attach(x *extent) bool {
	x.pending = min(s.settled.missing(store.Range{First: x.first, Last: x.last}), x.count)
	if x.pending == 0 {
		return false
	}
	x.pendingBytes = share(x.bytes, x.pending, x.count)
	x.segment.pendingExtents++
	x.segment.pendingBytes += x.pendingBytes
	i, _ := slices.BinarySearchFunc(s.extents, x.first, func(e *extent, seq uint64) int { return cmp.Compare(e.first, seq) })
	s.extents = slices.Insert(s.extents, i, x)
	return true
}

// detach undoes attach.
func (s *stream) detach(x *extent) {
	if i := slices.Index(s.extents, x); i >= 0 {
		s.extents = slices.Delete(s.extents, i, i+1)
		x.segment.pendingExtents--
		x.segment.pendingBytes -= x.pendingBytes
		x.pending, x.pendingBytes = 0, 0
	}
}

// deduct subtracts the newly settled messages of r from what is pending. It reports whether a segment has nothing
// pending any longer.
func (s *stream) deduct(r store.Range) (emptied bool) {
	i := s.searchExtent(r.First)
	kept, end := i, i
	for ; end < len(s.extents) && s.extents[end].first <= r.Last; end++ {
		x := s.extents[end]
		n := min(min(x.last, r.Last)-max(x.first, r.First)+1, x.pending)
		bytes := share(x.pendingBytes, n, x.pending)
		x.pending -= n
		x.pendingBytes -= bytes
		x.segment.pendingBytes -= bytes
		s.addBytes(-bytes)
		if x.pending > 0 {
			s.extents[kept] = x
			kept++
			continue
		}
		x.segment.pendingExtents--
		emptied = emptied || x.segment.pendingExtents == 0
	}
	s.extents = slices.Delete(s.extents, kept, end)
	return emptied
}

// share returns n/of of total, and exactly total when n is of.
func share(total int64, n, of uint64) int64 {
	if n >= of {
		return total
	}
	return int64(float64(total) * (float64(n) / float64(of)))
}
