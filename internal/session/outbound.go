package session

import (
	"time"

	"github.com/buffstreams/watermill-buffstreams/internal/flow"
	"github.com/buffstreams/watermill-buffstreams/internal/wire"
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
	Budget          *flow.Budget
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
	hint    int      // at the size of the next chunk: a busy stream fills it as it did the last one
	yard    *yard    // gets the memory of chunks that are settled; nil: the collector does

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
	if o.touched || o.pending > 0 || o.room != nil || len(o.waitReceived)+len(o.waitHandled) > 0 {
		o.idle = time.Time{}
		return 0
	}
	if o.idle.IsZero() {
		o.idle = now
	}
	return now.Sub(o.idle)
}

// busy tells whether something is on its way, or awaited, or held that should be given back.
func (o *Outbound) busy() bool {
	messages, bytes := o.credit.left()
	return o.touched || o.waits() > 0 || o.room != nil || len(o.waitReceived)+len(o.waitHandled) > 0 || messages+bytes > 0
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
	s = Segment{Handle: o.handle, First: o.sent, Gap: o.gap, Prompt: len(o.waitReceived) > 0, Body: c.buf[o.sentOff : o.sentOff+size]}
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
	if (a.Messages == 0) != (a.Bytes == 0) {
		return violation("credit of stream %q names messages or bytes alone", o.Topic)
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
