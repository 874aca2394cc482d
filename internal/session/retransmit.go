package session

import (
	"math/bits"
	"slices"

	"github.com/buffstreams/watermill-buffstreams/internal/buffers"
)

// Enqueue adds as many messages of b to a stream, from index i on, as there is room for, or none while a caller has to
// wait for room that came before this one. It returns their number and the sequence of the first. If they are not all,
// the caller's turn, which may be nil, stands in the line: it tries again when its turn is Ready, or leaves the line.
func (c *Client) Enqueue(o *Outbound, b *Batch, i int, turn *Turn) (taken int, first uint64, err error) {
	if o.cause != nil {
		return 0, 0, o.cause
	}
	first = o.next
	may := o.mayEnqueue(turn)
	o.takeBack(turn)
	if may {
		c.noteAge(o)
		taken = o.enqueue(b, i, turn)
	}
	if taken > 0 {
		c.schedule(o)
	}
	if i+taken < b.Len() {
		o.join(turn, len(b.entry(i+taken)))
	} else if turn != nil {
		o.Leave(turn)
	}
	return taken, first, nil
}

// enqueue adds as many messages of b, from index i on, as the window and its budget have room for. turn, if it is not
// nil, is signalled when the budget has more.
func (o *Outbound) enqueue(b *Batch, i int, turn *Turn) (taken int) {
	var notify func()
	if turn != nil {
		notify = turn.signal
	}
	o.line.short = nil
	reserved, room := 0, true
	for ; i+taken < b.Len(); taken++ {
		at := i + taken
		entry := b.entry(at)
		if room = o.fits(1, len(entry)); !room {
			break
		}
		if reserved < len(entry) {
			o.account.Release(reserved)
			if reserved = o.account.Take(len(entry), o.fitting(b, at), notify); reserved == 0 {
				o.line.short = turn
				break
			}
		}
		reserved -= len(entry)
		if b.entries[at].own != nil {
			o.adopt(entry)
			b.entries[at].own = nil
			continue
		}
		o.append(entry)
	}
	o.account.Release(reserved)
	if !room {
		o.account.Leave()
	}
	o.account.Wake()
	return taken
}

// fits tells whether the window has room for so many more messages and bytes, beside what is set aside. A message that
// is larger than the window fits when the buffer is empty.
func (o *Outbound) fits(messages, bytes int) bool {
	messages += o.pending + o.line.aside.Messages
	return messages <= o.window.Messages && (messages == 1 || o.bytes+o.line.aside.Bytes+bytes <= o.window.Bytes)
}

// fitting is the size of the messages of b from index i on that the window has room for, at least that of the first.
func (o *Outbound) fitting(b *Batch, i int) (bytes int) {
	bytes = b.size(i)
	for n := i + 1; n < b.Len(); n++ {
		size := b.size(n)
		if !o.fits(n-i+1, bytes+size) {
			break
		}
		bytes += size
	}
	return bytes
}

// adopt adds one encoded message in a chunk that takes its memory over.
func (o *Outbound) adopt(entry []byte) {
	o.chunks = append(o.chunks, &chunk{first: o.next, count: 1, live: 1, largest: len(entry), buf: entry, adopted: true})
	o.bytes += len(entry)
	o.pending++
	o.next++
}

// append adds a copy of one encoded message.
func (o *Outbound) append(entry []byte) {
	c := o.tailChunk(len(entry))
	c.buf = append(c.buf, entry...)
	c.largest = max(c.largest, len(entry))
	c.count++
	c.live++
	o.bytes += len(entry)
	o.pending++
	o.next++
}

// tailChunk returns the chunk for the next message, of n bytes.
func (o *Outbound) tailChunk(n int) *chunk {
	if k := len(o.chunks); k > 0 {
		last := o.chunks[k-1]
		if last.buf != nil && last.hasRoom(n) && last.end() == o.next {
			return last
		}
		if !last.adopted {
			o.chunkHint = 2 * len(last.buf)
		}
		if last.live == 0 && last.buf != nil { // it was kept open for this message
			o.freeChunk(last)
			o.mergeFreed(k - 1)
		}
	}
	c := &chunk{first: o.next, buf: buffers.Get(max(n, chunkInitial, min(o.chunkHint, chunkBytes)))}
	o.chunks = append(o.chunks, c)
	return c
}

// skipSettled moves the sending position to the next message that is not settled. It returns false if there is none.
func (o *Outbound) skipSettled() bool {
	if first, _ := o.settled.Hole(o.sent); first > o.sent {
		o.gap = o.gap || o.sent < o.next
		o.seekTo(min(first, o.next))
		if o.fetched != nil {
			o.fetched.dropSent(o)
		}
	}
	if !o.hasUnsent() {
		return false
	}
	for o.sent >= o.chunks[o.sentChunk].end() {
		o.sentChunk++
		o.sentOffset = 0
	}
	return true
}

// oversized returns the first message that is not sent, is larger than most with its tag and length, and was not
// returned on this connection. It looks at each message once.
func (o *Outbound) oversized(most int) (seq uint64, ok bool) {
	if o.state != open || o.leaving || o.revoking || o.checked >= o.next || !o.skipSettled() {
		return 0, false
	}
	from := max(o.checked, o.sent)
	for i := o.chunkOf(from); i < len(o.chunks); i++ {
		c := o.chunks[i]
		if c.buf == nil || c.largest <= most {
			continue
		}
		seq = max(from, c.first)
		for at := c.offsetAfter(0, seq-c.first); seq < c.end(); seq++ {
			size := entrySize(c.buf[at:])
			if size > most && !o.settled.Has(seq) {
				o.checked = seq + 1
				return seq, true
			}
			at += size
		}
	}
	o.checked = o.next
	return 0, false
}

// nextIsOversized tells whether the next message to send is larger than most, with its tag and length.
func (o *Outbound) nextIsOversized(most int) bool {
	if o.state != open || !o.skipSettled() {
		return false
	}
	c := o.chunks[o.sentChunk]
	return c.largest > most && entrySize(c.buf[o.sentOffset:]) > most
}

// seekTo sets the sending position to a sequence, which may be next.
func (o *Outbound) seekTo(seq uint64) {
	o.sent, o.sentChunk, o.sentOffset = seq, 0, 0
	for o.sentChunk < len(o.chunks) && o.chunks[o.sentChunk].end() <= seq {
		o.sentChunk++
	}
	if o.sentChunk < len(o.chunks) {
		if c := o.chunks[o.sentChunk]; c.buf != nil && seq > c.first {
			o.sentOffset = c.offsetAfter(0, seq-c.first)
		}
		return
	}
	o.sentChunk = max(0, len(o.chunks)-1)
	if len(o.chunks) > 0 {
		o.sentOffset = len(o.chunks[o.sentChunk].buf)
	}
}

// checkRanges checks that pairs are of first and last, and returns the highest sequence in them.
func (o *Outbound) checkRanges(pairs []uint64) (highest uint64, err error) {
	if len(pairs)%2 != 0 {
		return 0, violation("settled ranges are not pairs")
	}
	for i := 0; i < len(pairs); i += 2 {
		first, last := pairs[i], pairs[i+1]
		if first == 0 || last < first {
			return 0, violation("settled %d to %d of stream %q", first, last, o.Topic)
		}
		highest = max(highest, last)
	}
	return highest, nil
}

// settleRanges settles what checkRanges has checked. The ranges may lie above received: a restarted receiver may
// remember what was settled, and not what was received.
func (o *Outbound) settleRanges(pairs []uint64) {
	for i := 0; i < len(pairs); i += 2 {
		o.settle(pairs[i], pairs[i+1])
	}
}

// settle settles the messages from first to last and frees the chunks that hold no others.
func (o *Outbound) settle(first, last uint64) {
	first = max(first, o.settled.Next())
	if last < first {
		return
	}
	if o.fetched != nil {
		o.noteSettled(first, o.settled.Add(first, last), 0)
		o.fetched.events = append(o.fetched.events, Event{First: first, Last: last})
		return
	}
	if o.settled.Sparse() == 0 {
		o.settleChunks(first, last)
	} else {
		for lo, hi := range o.settled.Holes(first, last+1) {
			o.settleChunks(lo, hi)
		}
	}
	n, bytes := o.settled.Add(first, last), o.settledBytes
	o.settledBytes = 0
	o.noteSettled(first, n, bytes)
	o.compact(first, last)
	o.dropFront()
	o.signalRoom()
}

// compactBelow says when a chunk is compacted: if at most one in so many of its messages is not settled. A few messages
// that stay unsettled would otherwise pin many times their size, and fill the window.
const compactBelow = 8

// compact replaces those chunks from first to last that have few unsettled messages by their unsettledPieces. The last
// chunk, which takes more messages, and those that are not sent yet stay as they are.
func (o *Outbound) compact(first, last uint64) {
	from := max(0, o.chunkOf(first)-1) // the one before may have been the last chunk the last time
	for i := from; i < len(o.chunks)-1 && o.chunks[i].first <= last; i++ {
		c := o.chunks[i]
		if c.live == 0 || c.live*compactBelow > c.count || o.sent < c.end() {
			continue
		}
		pieces, kept := o.unsettledPieces(c)
		o.chunks = slices.Replace(o.chunks, i, i+1, pieces...)
		o.sentChunk += len(pieces) - 1 // the sending position is behind all of them
		o.bytes -= len(c.buf) - kept
		o.releaseBudget(len(c.buf) - kept)
		i += len(pieces) - 1
	}
}

// unsettledPieces returns chunks that cover the same sequences as c, with copies of the messages that are not settled,
// and the size of these.
func (o *Outbound) unsettledPieces(c *chunk) (pieces []*chunk, kept int) {
	for seq, offset := c.first, 0; seq < c.end(); {
		first, last := o.settled.Hole(seq)
		first, last = min(first, c.end()), min(last, c.end()-1)
		if first > seq {
			pieces = append(pieces, &chunk{first: seq, count: int(first - seq)})
			offset = c.offsetAfter(offset, first-seq)
		}
		if first == c.end() {
			break
		}
		end, n := c.offsetAfter(offset, last-first+1), int(last-first+1)
		pieces = append(pieces, &chunk{first: first, count: n, live: n, largest: c.largest, buf: slices.Clone(c.buf[offset:end])})
		kept += end - offset
		seq, offset = last+1, end
	}
	return pieces, kept
}

// settleChunks counts the messages from first to last, none of which was settled before, as settled in their chunks.
func (o *Outbound) settleChunks(first, last uint64) {
	for i := o.chunkOf(first); i < len(o.chunks) && o.chunks[i].first <= last; i++ {
		c := o.chunks[i]
		n := int(min(last+1, c.end()) - max(first, c.first))
		if o.counting != nil && o.counting.observe && c.count > 0 {
			o.settledBytes += len(c.buf) * n / c.count
		}
		c.live -= n
		o.pending -= n
		// The last chunk stays while it has room for more messages.
		if c.live == 0 && (i < len(o.chunks)-1 || !c.hasRoom(1)) {
			o.freeChunk(c)
			i = o.mergeFreed(i)
		}
	}
}

// mergeFreed merges the freed chunk at index i with its freed neighbours, and returns its index: ever more of them
// would follow a message that stays unsettled.
func (o *Outbound) mergeFreed(i int) int {
	if i > 0 && o.chunks[i-1].buf == nil {
		i--
	}
	for i+1 < len(o.chunks) && o.chunks[i+1].buf == nil {
		o.chunks[i].count += o.chunks[i+1].count
		o.chunks = slices.Delete(o.chunks, i+1, i+2)
		if o.sentChunk > i {
			o.sentChunk--
		}
	}
	return i
}

// freeChunk gives the chunk's memory back, and its share of the window.
func (o *Outbound) freeChunk(c *chunk) {
	o.releaseBudget(len(c.buf))
	o.bytes -= len(c.buf)
	if o.freeLater != nil && !c.lent {
		o.freeLater.buffers = append(o.freeLater.buffers, c.buf)
	}
	c.buf = nil
}

// chunkOf returns the index of the chunk that covers seq.
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

// dropFront removes the chunks before the first one with an unsettled message.
func (o *Outbound) dropFront() {
	n := 0
	for n < len(o.chunks) && o.chunks[n].live == 0 {
		n++
	}
	if n == 0 {
		return
	}
	if last := o.chunks[n-1]; last.buf != nil { // the buffer is empty: an idle stream keeps no memory
		if !last.adopted {
			o.chunkHint = 1 << bits.Len(uint(len(last.buf)-1)) // few sizes, so that buffers can be reused
		}
		o.freeChunk(last)
	}
	clear(o.chunks[:n])
	o.chunks = o.chunks[n:]
	if o.sentChunk -= n; o.sentChunk < 0 {
		o.sentChunk, o.sentOffset = 0, 0
	}
}

// signalRoom wakes the callers for whom the window has room.
func (o *Outbound) signalRoom() {
	o.callLine()
	if o.room != nil {
		close(o.room)
		o.room = nil
	}
}
