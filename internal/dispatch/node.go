package dispatch

import (
	"sync/atomic"
	"time"

	"github.com/buffstreams/watermill-buffstreams/internal/buffers"
)

// node is a run of messages in the log.
type node struct {
	source  Source
	first   uint64 // sequence of the first message in its stream
	pos     uint64 // its position in the log
	at      time.Time
	buf     []byte          // the messages, one behind the other, until every group has taken all of them
	ends    []uint32        // where each of them ends in buf, as long
	unread  atomic.Int64    // messages that groups have not taken, each counted for each group
	left    []int32         // groups that have not settled each message; nil: there is one group
	refusal map[int]Refusal // of messages that some group refused and others have not settled
}

// newNode makes a node of messages. With own it may keep the memory of a single one; otherwise it copies them, into memory
// that is used again when they were taken.
func newNode(source Source, first uint64, msgs [][]byte, at time.Time, own bool) *node {
	n := &node{source: source, first: first, at: at, ends: make([]uint32, len(msgs))}
	if own && len(msgs) == 1 {
		n.buf, n.ends[0] = msgs[0], uint32(len(msgs[0]))
		return n
	}
	size := 0
	for i, m := range msgs {
		size += len(m)
		n.ends[i] = uint32(size)
	}
	n.buf = buffers.Get(size)
	for _, m := range msgs {
		n.buf = append(n.buf, m...)
	}
	return n
}

// count is the number of its messages.
func (n *node) count() int { return len(n.ends) }

// message is a view of one message, until it is taken by all groups.
func (n *node) message(i int) []byte {
	start := uint32(0)
	if i > 0 {
		start = n.ends[i-1]
	}
	return n.buf[start:n.ends[i]:n.ends[i]]
}

// shared tells for how many groups it is.
func (n *node) shared(groups int) {
	n.unread.Store(int64(groups) * int64(n.count()))
	if groups == 1 {
		return
	}
	n.left = make([]int32, n.count())
	for i := range n.left {
		n.left[i] = int32(groups)
	}
}

// single tells that nobody else will ask for its memory: a message of it may stay there.
func (n *node) single() bool { return n.left == nil && n.count() == 1 }

// pass counts so many takings. The last one sets the memory free.
func (n *node) pass(taken int) {
	if n.unread.Add(int64(-taken)) == 0 {
		buffers.Put(n.buf)
		n.buf, n.ends = nil, nil
	}
}
