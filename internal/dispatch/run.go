package dispatch

import (
	"sync/atomic"
	"time"

	"github.com/buffstreams/watermill-buffstreams/internal/buffers"
)

// run is a part of the log: consecutive messages of one source that arrived together. left and refusals are guarded by
// Topic.mu. All else is set before the run is in the log, except buf, memory and ends, which end with the last
// release.
type run struct {
	source Source
	first  uint64       // sequence of the first message at its source
	pos    uint64       // position of the first message in the log
	at     time.Time    // when the messages were received
	buf    []byte       // the messages back to back
	memory []byte       // what buf is a part of
	ends   []uint32     // where each message ends in buf
	one    [1]uint32    // ends of a single message
	views  atomic.Int64 // how often a message is still needed in buf: once by each group, until that settles or detaches it

	known GroupSource // source, if it remembers what groups had settled; nil: it does not

	elsewhere bool // another receiver may have had the messages
	withdrawn bool // every group has given up what it had not taken: see Withdraw; guarded by Topic.mu

	until time.Time // of a remainder: it is given to those that come before; zero for all others

	left     []int32         // for each message, the groups that have not settled it, handled, and returned; nil if there is one group
	refusals map[int]Refusal // of messages that one group refused and others have not settled
}

// newRun copies messages into memory that is used again when all of them were settled or detached. With own it keeps
// the memory of a single message instead, if that is given.
func newRun(source Source, first uint64, msgs [][]byte, at time.Time, memory []byte) *run {
	r := &run{source: source, first: first, at: at}
	if r.ends = r.one[:]; len(msgs) > 1 {
		r.ends = make([]uint32, len(msgs))
	}
	if memory != nil && len(msgs) == 1 {
		r.buf, r.memory, r.ends[0] = msgs[0], memory, uint32(len(msgs[0]))
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
	r.memory = r.buf
	return r
}

// setGroups sets how many groups are to take and settle each message.
func (r *run) setGroups(n int) {
	r.views.Store(int64(n) * int64(r.count()))
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

// message is a view of a message, valid until the caller's group releases it.
func (r *run) message(i int) []byte {
	end := int(r.ends[i])
	return r.buf[end-r.length(i) : end : end]
}

func (r *run) length(i int) int {
	if i == 0 {
		return int(r.ends[0])
	}
	return int(r.ends[i] - r.ends[i-1])
}

// release ends a group's use of one message's view. After the last view of the last group the memory is free.
func (r *run) release() {
	if r.views.Add(-1) == 0 {
		buffers.Put(r.memory)
		r.buf, r.memory, r.ends = nil, nil, nil
	}
}

// handled is set in run.left when a group's handler has handled the message.
const handled = 1 << 30

// returned is set in run.left when a group has given a message up: see Withdraw.
const returned = 1 << 29

// isHandled reports whether a group's handler has handled a message. The caller must hold Topic.mu.
func (r *run) isHandled(i int) bool { return r.shared() && r.left[i]&handled != 0 }

// isReturned reports whether a group has given a message up. The caller must hold Topic.mu.
func (r *run) isReturned(i int) bool { return r.shared() && r.left[i]&returned != 0 }

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
	if r.left[i]--; r.left[i]&^(handled|returned) > 0 {
		return nil, false
	}
	if earlier, refused := r.refusals[i]; refused {
		refusal = &earlier
	}
	return refusal, true
}
