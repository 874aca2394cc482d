package dispatch

import (
	"sync/atomic"
	"time"

	"github.com/buffstreams/watermill-buffstreams/internal/buffers"
)

// run is a part of the log: consecutive messages of one source that arrived together. left and refusals are guarded by
// Topic.mu. All else is set before the run is in the log, except buf and ends, which end with the last release.
type run struct {
	source Source
	first  uint64       // sequence of the first message at its source
	pos    uint64       // position of the first message in the log
	at     time.Time    // when the messages were received
	buf    []byte       // the messages back to back
	ends   []uint32     // where each message ends in buf
	unread atomic.Int64 // how often a message is still to be taken: once by each group

	until time.Time // of a remainder: it is given to those that come before; zero for all others

	left     []int32         // for each message, the groups that have not settled it; nil if there is one group
	refusals map[int]Refusal // of messages that one group refused and others have not settled
}

// newRun copies messages into memory that is used again when all of them were taken. With own it keeps the memory of a
// single message instead.
func newRun(source Source, first uint64, msgs [][]byte, at time.Time, own bool) *run {
	r := &run{source: source, first: first, at: at, ends: make([]uint32, len(msgs))}
	if own && len(msgs) == 1 {
		r.buf, r.ends[0] = msgs[0], uint32(len(msgs[0]))
		return r
	}
	size := 0
	for i, m := range msgs {
		size += len(m)
		r.ends[i] = uint32(size)
	}
	r.buf = buffers.Get(size)
	for _, m := range msgs {
		r.buf = append(r.buf, m...)
	}
	return r
}

// setGroups sets how many groups are to take and settle each message.
func (r *run) setGroups(n int) {
	r.unread.Store(int64(n) * int64(r.count()))
	if n == 1 {
		return
	}
	r.left = make([]int32, r.count())
	for i := range r.left {
		r.left[i] = int32(n)
	}
}

// repeats reports whether the run gives a message out once more, that may have been settled: see remainder.
func (r *run) repeats() bool { return !r.until.IsZero() }

func (r *run) count() int { return len(r.ends) }

// shared reports whether several groups have to settle each message.
func (r *run) shared() bool { return r.left != nil }

// single reports whether the run is one message for one group, whose delivery then keeps the memory.
func (r *run) single() bool { return !r.shared() && r.count() == 1 }

// message is a view of a message, valid until the caller's group releases it.
func (r *run) message(i int) []byte {
	start := uint32(0)
	if i > 0 {
		start = r.ends[i-1]
	}
	return r.buf[start:r.ends[i]:r.ends[i]]
}

// release ends a group's use of one message's view. After the last view of the last group the memory is free.
func (r *run) release() {
	if r.unread.Add(-1) == 0 {
		buffers.Put(r.buf)
		r.buf, r.ends = nil, nil
	}
}

// settle ends a message for one group. It reports whether every group has settled the message now, and the refusal if
// one of them refused it. What was given out once more is never settled again. The caller must hold Topic.mu if the run
// is shared.
func (r *run) settle(i int, refusal *Refusal) (*Refusal, bool) {
	switch {
	case r.repeats():
		return nil, false
	case !r.shared():
		return refusal, true
	}
	if refusal != nil {
		if r.refusals == nil {
			r.refusals = map[int]Refusal{}
		}
		r.refusals[i] = *refusal
	}
	if r.left[i]--; r.left[i] > 0 {
		return nil, false
	}
	if earlier, refused := r.refusals[i]; refused {
		refusal = &earlier
	}
	return refusal, true
}
