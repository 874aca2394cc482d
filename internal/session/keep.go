package session

import (
	"math/bits"
	"slices"

	"github.com/buffstreams/watermill-buffstreams/internal/buffers"
)

// enqueue takes as many messages of b, from index i on, as the window has room for.
func (o *Outbound) enqueue(b *Batch, i int) (taken int) {
	for ; i+taken < b.Len(); taken++ {
		at := i + taken
		entry := b.entry(at)
		if o.pending >= o.window.Messages || o.pending > 0 && o.bytes+len(entry) > o.window.Bytes ||
			!o.window.Budget.Take(len(entry)) {
			break
		}
		if b.entries[at].own != nil {
			o.adopt(entry)
			b.entries[at].own = nil // it is the stream's now
			continue
		}
		o.append(entry)
	}
	return taken
}

// adopt adds one encoded message with the memory that it is in.
func (o *Outbound) adopt(entry []byte) {
	o.chunks = append(o.chunks, &chunk{first: o.next, count: 1, live: 1, buf: entry, alone: true})
	o.bytes += len(entry)
	o.pending++
	o.next++
}

// append adds one encoded message.
func (o *Outbound) append(entry []byte) {
	c := o.tail(len(entry))
	c.buf = append(c.buf, entry...)
	c.count++
	c.live++
	o.bytes += len(entry)
	o.pending++
	o.next++
}

// tail returns the chunk that takes the next message, of n bytes.
func (o *Outbound) tail(n int) *chunk {
	if k := len(o.chunks); k > 0 {
		last := o.chunks[k-1]
		if last.buf != nil && last.takes(n) && last.end() == o.next {
			return last
		}
		if !last.alone {
			o.hint = 2 * len(last.buf)
		}
		if last.live == 0 && last.buf != nil { // it was kept for the messages that it has no room for
			o.free(last)
			o.join(k - 1)
		}
	}
	c := &chunk{first: o.next, buf: buffers.Get(max(n, chunkInitial, min(o.hint, chunkBytes)))}
	o.chunks = append(o.chunks, c)
	return c
}

// fit returns the longest run of at most count messages from offset on that bytes of credit cover.
func (c *chunk) fit(offset int, count, bytes uint64) (n uint64, size int) {
	for n < count {
		entry := entrySize(c.buf[offset+size:])
		if uint64(size+entry) > bytes {
			break
		}
		size += entry
		n++
	}
	return n, size
}

// seek moves the sending position past what is settled already, to a chunk that holds the next message.
func (o *Outbound) seek() bool {
	if first, _ := o.settled.Hole(o.sent); first > o.sent {
		o.gap = o.gap || o.sent < o.next
		o.seekTo(min(first, o.next))
	}
	if !o.unsent() {
		return false
	}
	for o.sent >= o.chunks[o.sentAt].end() {
		o.sentAt++
		o.sentOff = 0
	}
	return true
}

// skip moves the sending position past a message that was settled there.
func (o *Outbound) skip() {
	o.seek()
	if o.relay != nil {
		o.relay.sentChunk(o)
	}
}

// seekTo sets the sending position.
func (o *Outbound) seekTo(seq uint64) {
	o.sent, o.sentAt, o.sentOff = seq, 0, 0
	for o.sentAt < len(o.chunks) && o.chunks[o.sentAt].end() <= seq {
		o.sentAt++
	}
	if o.sentAt < len(o.chunks) {
		if c := o.chunks[o.sentAt]; c.buf != nil && seq > c.first {
			o.sentOff = c.skip(0, seq-c.first)
		}
		return
	}
	o.sentAt = max(0, len(o.chunks)-1)
	if len(o.chunks) > 0 {
		o.sentOff = len(o.chunks[o.sentAt].buf)
	}
}

// settleRanges settles pairs of first and last, all of which must have been sent. They may lie above what the receiver
// has: it forgets that at a restart, and not what was settled.
func (o *Outbound) settleRanges(pairs []uint64, received uint64) error {
	limit := max(received, o.farthest)
	if o.relay != nil { // what an earlier process sent is not known
		limit = o.known()
	}
	if len(pairs)%2 != 0 {
		return violation("settled ranges are not pairs")
	}
	for i := 0; i < len(pairs); i += 2 {
		first, last := pairs[i], pairs[i+1]
		if first == 0 || last < first || last >= limit {
			return violation("settled %d to %d of stream %q, sent below %d", first, last, o.Topic, limit)
		}
		o.settle(first, last)
	}
	return nil
}

// settle forgets the messages from first to last and frees the chunks that hold no others.
func (o *Outbound) settle(first, last uint64) {
	first = max(first, o.settled.Next())
	if last < first {
		return
	}
	if o.relay != nil {
		o.settled.Add(first, last)
		o.relay.events = append(o.relay.events, Event{First: first, Last: last})
		return
	}
	if o.settled.Sparse() == 0 {
		o.settleChunks(first, last)
	} else {
		for seq := first; ; {
			lo, hi := o.settled.Hole(seq)
			if lo > last {
				break
			}
			hi = min(hi, last)
			o.settleChunks(lo, hi)
			seq = hi + 1
		}
	}
	o.settled.Add(first, last)
	o.thin(first, last)
	o.dropFront()
	o.release()
}

// sparse is the part of a chunk below which what is left of it moves to memory of its own: a few stuck messages would
// otherwise keep many times their size, and the window with it.
const sparse = 8

// thin moves what is left of sparse chunks among those from first to last. The chunk being filled, and what is still to
// be sent, stays where it is.
func (o *Outbound) thin(first, last uint64) {
	from := max(0, o.chunkOf(first)-1) // the one before may have been the one being filled, the last time
	for i := from; i < len(o.chunks)-1 && o.chunks[i].first <= last; i++ {
		c := o.chunks[i]
		if c.live == 0 || c.live*sparse > c.count || o.sent < c.end() {
			continue
		}
		pieces, kept := o.remains(c)
		o.chunks = slices.Replace(o.chunks, i, i+1, pieces...)
		if o.sentAt >= i { // behind all of them, as is what was sent
			o.sentAt += len(pieces) - 1
		}
		o.bytes -= len(c.buf) - kept
		o.window.Budget.Release(len(c.buf) - kept)
		i += len(pieces) - 1
	}
}

// remains returns chunks that cover the same sequences as c and hold only what is not settled, and the size of that.
func (o *Outbound) remains(c *chunk) (pieces []*chunk, kept int) {
	for seq, offset := c.first, 0; seq < c.end(); {
		first, last := o.settled.Hole(seq)
		first, last = min(first, c.end()), min(last, c.end()-1)
		if first > seq {
			pieces = append(pieces, &chunk{first: seq, count: int(first - seq)})
			offset = c.skip(offset, first-seq)
		}
		if first == c.end() {
			break
		}
		end, n := c.skip(offset, last-first+1), int(last-first+1)
		pieces = append(pieces, &chunk{first: first, count: n, live: n, buf: slices.Clone(c.buf[offset:end])})
		kept += end - offset
		seq, offset = last+1, end
	}
	return pieces, kept
}

// settleChunks counts a run of which nothing was settled before.
func (o *Outbound) settleChunks(first, last uint64) {
	for i := o.chunkOf(first); i < len(o.chunks) && o.chunks[i].first <= last; i++ {
		c := o.chunks[i]
		n := int(min(last+1, c.end()) - max(first, c.first))
		c.live -= n
		o.pending -= n
		// The open chunk stays: it takes more messages.
		if c.live == 0 && (i < len(o.chunks)-1 || !c.takes(1)) {
			o.free(c)
			i = o.join(i)
		}
	}
}

// join makes one of the freed chunk at index i and its freed neighbours, and returns its index: a stuck message would have
// ever more of them behind it.
func (o *Outbound) join(i int) int {
	if i > 0 && o.chunks[i-1].buf == nil {
		i--
	}
	for i+1 < len(o.chunks) && o.chunks[i+1].buf == nil {
		o.chunks[i].count += o.chunks[i+1].count
		o.chunks = slices.Delete(o.chunks, i+1, i+2)
		if o.sentAt > i {
			o.sentAt--
		}
	}
	return i
}

func (o *Outbound) free(c *chunk) {
	o.window.Budget.Release(len(c.buf))
	o.bytes -= len(c.buf)
	if o.yard != nil {
		o.yard.retired = append(o.yard.retired, c.buf)
	}
	c.buf = nil
}

// chunkOf returns the index of the chunk that holds seq.
func (o *Outbound) chunkOf(seq uint64) int {
	lo, hi := 0, len(o.chunks)
	for lo < hi {
		if mid := (lo + hi) / 2; o.chunks[mid].end() <= seq {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo
}

// dropFront forgets the leading chunks that are settled whole.
func (o *Outbound) dropFront() {
	n := 0
	for n < len(o.chunks) && o.chunks[n].live == 0 {
		n++
	}
	if n == 0 {
		return
	}
	if last := o.chunks[n-1]; last.buf != nil { // drained: an idle stream keeps no memory
		if !last.alone {
			o.hint = 1 << bits.Len(uint(len(last.buf)-1)) // few sizes, so that freed ones suit
		}
		o.free(last)
	}
	clear(o.chunks[:n])
	o.chunks = o.chunks[n:]
	if o.sentAt -= n; o.sentAt < 0 {
		o.sentAt, o.sentOff = 0, 0
	}
}

// release lets those go on who wait for room in the window.
func (o *Outbound) release() {
	if o.room != nil {
		close(o.room)
		o.room = nil
	}
}
