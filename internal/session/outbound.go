package session

import (
	"context"
	"slices"
	"time"

	"github.com/buffstreams/watermill-buffstreams/internal/dispatch"
	wire "github.com/buffstreams/watermill-buffstreams/proto"
)

// Identity names a publisher across its connections and restarts.
type Identity struct {
	Publisher [16]byte
	Epoch     uint64
	Secret    [16]byte
}

// Window bounds what a sending side keeps for one stream. Budget bounds what all streams of a process keep together.
type Window struct {
	Messages, Bytes int
	Budget          *dispatch.Budget
}

// Level says how far a message must have come before a Waiter is done.
type Level int

// The levels a Waiter can wait for.
const (
	Received Level = iota + 1
	Handled
)

// Waiter waits until a run of messages reached a level. Done receives one value when Err is set for good.
type Waiter struct {
	Level       Level
	First, Last uint64
	Deadline    time.Time
	Done        chan struct{}
	Err         error
}

func (w *Waiter) finish(err error) {
	w.Err = err
	w.Done <- struct{}{}
}

// streamState is a stream's state on the current connection.
type streamState int

const (
	unopened streamState = iota
	opening
	open
	broken // for good: cause says why
)

// Outbound is the sending side of one stream: one publisher's flow to one topic at one destination. It keeps every
// message until it is settled, that is handled or rejected. It is not safe for concurrent use.
type Outbound struct {
	Topic  string
	id     Identity
	stream uint64
	handle uint64
	window Window
	relay  *relay // nil: the messages are kept here
	cause  error

	next    uint64 // sequence of the next message enqueued
	settled Watermark
	chunks  []*chunk // those with messages that are not settled, and what lies between them
	pending int      // messages not settled
	bytes   int      // encoded size of the chunks that are kept
	hint    int      // size of the last chunk: a busy stream fills the next one as well

	state    streamState
	sent     uint64 // next sequence to send on this connection
	sentAt   int    // its chunk
	sentOff  int    // its offset there
	gap      bool   // the next Publish must say that it follows a gap
	farthest uint64 // next sequence to send for the first time
	received uint64 // lowest sequence that the receiver does not have
	credit   credit
	wanting  bool      // a Want is on its way; until it is answered there is no credit
	touched  bool      // sent since the last Tick
	idle     time.Time // since when, as far as Tick has seen

	waitReceived []*Waiter // in order of Last
	waitHandled  []*Waiter
	room         chan struct{} // closed when the window has room again; nil while nobody waits
	queued       bool          // in the client's ready list
}

// credit is what may be sent and what was, counted from Opened.
type credit struct {
	messages, bytes         uint64 // granted, absolute
	usedMessages, usedBytes uint64
}

func (c *credit) left() (messages, bytes uint64) {
	return c.messages - c.usedMessages, c.bytes - c.usedBytes
}

// giveBack returns the unused part.
func (c *credit) giveBack() { c.messages, c.bytes = c.usedMessages, c.usedBytes }

func newOutbound(id Identity, stream, handle uint64, topic string, w Window, next uint64) *Outbound {
	return &Outbound{
		id: id, stream: stream, handle: handle, Topic: topic, window: w,
		next: next, settled: NewWatermark(next), sent: next, received: next,
	}
}

// Pending is the number of messages that are kept, that is not settled.
func (o *Outbound) Pending() int { return o.pending }

// Unreceived is the number of messages that the receiver is not known to have.
func (o *Outbound) Unreceived() int { return int(o.known() - o.reached()) }

// known is the sequence behind the last message that there is.
func (o *Outbound) known() uint64 {
	if o.relay != nil {
		return max(o.next, o.relay.tail)
	}
	return o.next
}

// waits is the number of messages that are not settled.
func (o *Outbound) waits() int {
	if o.relay != nil {
		return o.relay.waits(o)
	}
	return o.pending
}

// reached is the lowest sequence that the receiver does not have and that is not settled: no ack need come for those that
// are, if the receiver lost them or never got them.
func (o *Outbound) reached() uint64 {
	first, _ := o.settled.Hole(o.received)
	return first
}

// idleFor tells how long nothing has been on its way, as far as Tick has seen.
func (o *Outbound) idleFor(now time.Time) time.Duration {
	if o.touched || o.pending > 0 || len(o.waitReceived)+len(o.waitHandled) > 0 {
		o.idle = time.Time{}
		return 0
	}
	if o.idle.IsZero() {
		o.idle = now
	}
	return now.Sub(o.idle)
}

// Err is the reason why the stream is broken for good, or nil.
func (o *Outbound) Err() error { return o.cause }

// Room returns a channel that is closed when the window may have room again.
func (o *Outbound) Room() <-chan struct{} {
	if o.room == nil {
		o.room = make(chan struct{})
	}
	return o.room
}

// enqueue takes as many messages of b, from index i on, as the window has room for.
func (o *Outbound) enqueue(b *Batch, i int) (taken int) {
	for ; i+taken < b.Len(); taken++ {
		at := i + taken
		entry := b.buf[b.start(at):b.ends[at]]
		if o.pending >= o.window.Messages || o.pending > 0 && o.bytes+len(entry) > o.window.Bytes ||
			!o.window.Budget.Take(len(entry)) {
			break
		}
		o.append(entry)
	}
	return taken
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
		o.hint = cap(last.buf)
	}
	c := &chunk{first: o.next, buf: make([]byte, 0, max(n, chunkInitial, min(o.hint, chunkBytes)))}
	o.chunks = append(o.chunks, c)
	return c
}

func (o *Outbound) unsent() bool { return o.sent < o.next }

// segment takes the next run of messages that the credit covers. ok is false when there is none.
func (o *Outbound) segment() (s Segment, ok bool) {
	if o.state != open || !o.seek() {
		return s, false
	}
	c := o.chunks[o.sentAt]
	_, holeEnd := o.settled.Hole(o.sent)
	count, size := c.end()-o.sent, len(c.buf)-o.sentOff
	messages, bytes := o.credit.left()
	if run := min(count, messages, holeEnd-o.sent+1); run < count || uint64(size) > bytes {
		count, size = c.fit(o.sentOff, run, bytes)
	}
	if count == 0 {
		return s, false
	}
	s = Segment{Handle: o.handle, First: o.sent, Gap: o.gap, Body: c.buf[o.sentOff : o.sentOff+size]}
	o.credit.usedMessages += count
	o.credit.usedBytes += uint64(size)
	o.sent += count
	o.farthest = max(o.farthest, o.sent)
	o.sentOff += size
	o.gap, o.touched = false, true
	if o.relay != nil {
		o.relay.sentChunk(o)
	}
	return s, true
}

// unsend takes back the credit of a segment of one message that will not be sent, and leaves a gap in its place.
func (o *Outbound) unsend(bytes int) {
	o.credit.usedMessages--
	o.credit.usedBytes -= uint64(bytes)
	o.gap = true
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

// want says what the stream has to send: for Open and Want.
func (o *Outbound) want() (messages, bytes, least uint64) {
	if !o.seek() {
		return 0, 0, 0
	}
	messages = o.next - o.sent
	bytes = uint64(len(o.chunks[o.sentAt].buf) - o.sentOff)
	for _, c := range o.chunks[o.sentAt+1:] {
		bytes += uint64(len(c.buf))
	}
	return messages, bytes, uint64(entrySize(o.chunks[o.sentAt].buf[o.sentOff:]))
}

// opened resumes where the receiver stands.
func (o *Outbound) opened(f *wire.Opened) error {
	if f.Next > o.known() {
		return violation("opened at %d, which was never sent: the next is %d", f.Next, o.known())
	}
	if err := o.settleRanges(f.Settled, f.Next); err != nil {
		return err
	}
	o.state, o.gap = open, false
	o.received = max(f.Next, 1)
	o.credit = credit{}
	if o.relay != nil {
		o.relay.restart(o)
		return nil
	}
	o.seekTo(o.received)
	o.wake()
	return nil
}

// acked takes what the receiver says of its progress.
func (o *Outbound) acked(a *AckFrame) error {
	if a.Next != 0 {
		if a.Next > o.sent || a.Next < o.received {
			return violation("ack up to %d of stream %q, which was sent up to %d and acked up to %d",
				a.Next, o.Topic, o.sent, o.received)
		}
		o.received = a.Next
	}
	if err := o.settleRanges(a.Settled, o.received); err != nil {
		return err
	}
	if a.Messages < o.credit.messages && a.Messages != 0 || a.Bytes < o.credit.bytes && a.Bytes != 0 {
		return violation("credit of stream %q shrank", o.Topic)
	}
	if a.Messages != 0 {
		o.credit.messages, o.credit.bytes, o.wanting = a.Messages, a.Bytes, false
	}
	o.wake()
	return nil
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
	o.dropFront()
	o.release()
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
	o.hint = len(c.buf)
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

// wake finishes the waiters whose messages have come far enough.
func (o *Outbound) wake() {
	n := 0
	for reached := o.reached(); n < len(o.waitReceived) && o.waitReceived[n].Last < reached; n++ {
		o.waitReceived[n].finish(o.waitReceived[n].Err)
	}
	o.waitReceived = drop(o.waitReceived, n)
	if len(o.waitHandled) == 0 {
		return
	}
	kept := o.waitHandled[:0]
	for _, w := range o.waitHandled {
		if o.settled.Covers(w.First, w.Last) {
			w.finish(w.Err)
		} else {
			kept = append(kept, w)
		}
	}
	clear(o.waitHandled[len(kept):])
	o.waitHandled = kept
}

func drop(ws []*Waiter, n int) []*Waiter {
	if n == 0 {
		return ws
	}
	kept := copy(ws, ws[n:])
	clear(ws[kept:])
	return ws[:kept]
}

// await registers w, or finishes it at once.
func (o *Outbound) await(w *Waiter) {
	switch {
	case o.cause != nil:
		w.finish(o.cause)
	case w.Level == Received && w.Last < o.reached(), w.Level == Handled && o.settled.Covers(w.First, w.Last):
		w.finish(nil)
	case w.Level == Received:
		o.waitReceived = append(o.waitReceived, w)
	default:
		o.waitHandled = append(o.waitHandled, w)
	}
}

// expire fails the waiters whose deadline has passed.
func (o *Outbound) expire(now time.Time, err error) {
	o.waitReceived = expired(o.waitReceived, now, err)
	o.waitHandled = expired(o.waitHandled, now, err)
}

func expired(ws []*Waiter, now time.Time, err error) []*Waiter {
	kept := ws[:0]
	for _, w := range ws {
		if !w.Deadline.IsZero() && now.After(w.Deadline) {
			w.finish(err)
		} else {
			kept = append(kept, w)
		}
	}
	clear(ws[len(kept):])
	return kept
}

// disconnect forgets what belonged to the connection.
func (o *Outbound) disconnect() {
	if o.state != broken {
		o.state = unopened
	}
	o.credit, o.wanting, o.queued = credit{}, false, false
	if o.relay != nil {
		o.relay.clear(o)
		o.release()
	}
}

// fail breaks the stream for good.
func (o *Outbound) fail(cause error) {
	o.state, o.cause = broken, cause
	for _, c := range o.chunks {
		o.free(c)
	}
	o.chunks = nil
	for _, w := range append(o.waitReceived, o.waitHandled...) {
		w.finish(cause)
	}
	o.waitReceived, o.waitHandled = nil, nil
	o.release()
}

// Last is the sequence of the message enqueued last.
func (o *Outbound) Last() uint64 { return o.next - 1 }

// Cancel finishes w if it still waits.
func (o *Outbound) Cancel(w *Waiter) {
	remove := func(ws []*Waiter) []*Waiter {
		if i := slices.Index(ws, w); i >= 0 {
			w.finish(context.Canceled)
			return slices.Delete(ws, i, i+1)
		}
		return ws
	}
	o.waitReceived = remove(o.waitReceived)
	o.waitHandled = remove(o.waitHandled)
}
