package session

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/buffstreams/watermill-buffstreams/internal/flow"
	"github.com/buffstreams/watermill-buffstreams/internal/wire"
)

// Identity names a publisher across its connections and restarts. The Secret proves that a stream is its own; of two
// processes with the same Publisher, the receiver serves the one with the higher Epoch.
type Identity struct {
	Publisher [16]byte
	Epoch     uint64
	Secret    [16]byte
	// Lineage has the incarnations of the identity that are known, the present one last. Nil: it has none, as it does not
	// outlive the process.
	Lineage []Incarnation
}

// Window bounds the retransmit buffer of one stream. Budget bounds those of all streams of a process together; nil: it
// does not.
type Window struct {
	Messages, Bytes int
	Budget          *flow.Budget
}

// streamState is an Outbound's state on the current connection.
type streamState int

const (
	unopened streamState = iota
	opening              // Open was sent
	open                 // Opened came; while it is revoked, see move, nothing more is sent
	broken               // for good: cause says why
)

// Outbound is the sending side of one stream: one publisher's flow to one topic at one destination. It outlives
// connections, and keeps every message until it is settled, that is handled or rejected: see retransmit.go. A fetched
// stream keeps none: see fetched.go. It is not safe for concurrent use.
type Outbound struct {
	Topic   string
	id      Identity
	stream  uint64 // number in the identity
	handle  uint64 // number on the Client's connections
	window  Window
	account *flow.Account // in the window's budget
	fetched *fetched      // nil: the messages are kept here
	cause   error         // of state broken

	// The retransmit buffer. It holds every message from settled.Next to next that is not settled.
	next         uint64 // sequence of the next message enqueued
	settled      Watermark
	chunks       []*chunk      // in order of sequence; those in the middle may be freed
	pending      int           // messages not settled
	bytes        int           // encoded size of the chunks that are not freed
	chunkHint    int           // size of the next chunk: a busy stream fills it as it filled the last one
	freeLater    *deferredFree // takes the memory of freed chunks; nil: the garbage collector does
	counting     *counting     // of the Client; nil: nothing is counted
	settledBytes int           // of the messages that settle is about, where that is observed
	ages         ages

	// The current connection.
	state         streamState
	sent          uint64 // next sequence to send
	sentChunk     int    // index of its chunk
	sentOffset    int    // its offset in the chunk
	checked       uint64 // messages below it are no larger than the receiver takes, or were refused
	gap           bool   // the next Publish says that it follows a gap
	received      uint64 // lowest sequence that the receiver does not have
	credit        credit
	wantSent      bool   // a Want was not answered yet; until then there is no credit
	why           string // the receiver gives no credit, as it says; empty: it gives some, or does not say
	askedAt       time.Time
	queued        bool // in the Client's sendQueue
	sentSinceTick bool
	base          uint64 // of the Open that was sent last

	// Set while the receiver refuses the stream for a while: it is not opened before openAfter.
	deferred  *PeerError
	deferrals int // in a row
	openAfter time.Time

	move         // see move.go
	stuck        stuck
	ephemeral    bool      // see Ephemeral
	absentSince  time.Time // as Tick saw it; zero: the stream is not absent
	maxSent      uint64    // lowest sequence that was never sent
	idleSince    time.Time // as Tick saw it; zero: the stream is not idle
	waitReceived []*Waiter // in order of Last
	waitHandled  []*Waiter
	line         []*Turn       // callers that wait for room, in order
	room         chan struct{} // closed when the window may have room; nil while no caller waits
}

func newOutbound(id Identity, stream, handle uint64, topic string, w Window, next uint64) *Outbound {
	return &Outbound{
		id: id, stream: stream, handle: handle, Topic: topic, window: w, account: w.Budget.NewAccount(flow.Unknown),
		next: next, settled: NewWatermark(next), sent: next, received: next, move: move{tenure: 1},
	}
}

// Pending is the number of messages that the stream keeps because they are not settled.
func (o *Outbound) Pending() int { return o.pending }

// Unreceived is the number of messages that the receiver is not known to have received.
func (o *Outbound) Unreceived() int { return int(o.end() - o.firstUnreceived()) }

// end is one more than the sequence of the last message that the stream knows of.
func (o *Outbound) end() uint64 {
	if o.fetched != nil {
		return max(o.next, o.fetched.tail)
	}
	return o.next
}

// unsettled is the number of messages that are not settled.
func (o *Outbound) unsettled() int {
	if o.state == broken {
		return 0
	}
	if o.fetched != nil {
		return o.fetched.unsettled(o)
	}
	return o.pending
}

// firstUnreceived is the lowest sequence that the receiver does not have and that is not settled. A restarted receiver
// does not have settled messages either, and never acknowledges them again.
func (o *Outbound) firstUnreceived() uint64 {
	first, _ := o.settled.Hole(o.received)
	return first
}

// Err says why the stream is broken for good; nil: it is not.
func (o *Outbound) Err() error { return o.cause }

// Room returns a channel that is closed when the window may have room again, or, for a fetched stream, when NextFetch
// may return something else.
func (o *Outbound) Room() <-chan struct{} {
	if o.room == nil {
		o.room = make(chan struct{})
	}
	return o.room
}

func (o *Outbound) setPresence(p flow.Presence) {
	o.account.SetPresence(p)
	o.account.Wake()
}

// releaseBudget gives bytes back.
func (o *Outbound) releaseBudget(bytes int) {
	o.account.Release(bytes)
	o.account.Wake()
}

func (o *Outbound) hasUnsent() bool { return o.sent < o.next }

// segment returns the next run of messages in one chunk that the credit covers and of which none with its tag and length
// is larger than most, and counts them as sent. ok is false when there is none.
func (o *Outbound) segment(most int) (s Segment, ok bool) {
	if o.state != open || o.leaving || o.revoking || !o.skipSettled() {
		return s, false
	}
	c := o.chunks[o.sentChunk]
	_, holeEnd := o.settled.Hole(o.sent)
	again := false
	if o.again != nil {
		var n uint64
		n, again = o.sameKind(o.sent, holeEnd-o.sent+1)
		holeEnd = o.sent + n - 1
	}
	count, size := c.end()-o.sent, len(c.buf)-o.sentOffset
	messages, bytes := o.credit.available()
	if run := min(count, messages, holeEnd-o.sent+1); run < count || uint64(size) > bytes || c.largest > most {
		count, size = c.fit(o.sentOffset, run, bytes, most)
	}
	if count == 0 {
		return s, false
	}
	s = Segment{
		Handle: o.handle, First: o.sent, Count: count, Gap: o.gap, AckNow: len(o.waitReceived) > 0, Again: again,
		Body: c.buf[o.sentOffset : o.sentOffset+size],
	}
	o.credit.usedMessages += count
	o.credit.usedBytes += uint64(size)
	o.sent += count
	o.maxSent, o.sentTo = max(o.maxSent, o.sent), max(o.sentTo, o.sent)
	o.sentOffset += size
	o.gap, o.sentSinceTick = false, true
	if o.fetched != nil {
		o.fetched.dropSent(o)
	}
	return s, true
}

// unsentAmount is what the stream has to send, for Open and Want; least is the size of the first message.
func (o *Outbound) unsentAmount() (messages, bytes, least uint64) {
	if !o.skipSettled() {
		return 0, 0, 0
	}
	messages = o.next - o.sent
	bytes = uint64(len(o.chunks[o.sentChunk].buf) - o.sentOffset)
	for _, c := range o.chunks[o.sentChunk+1:] {
		bytes += uint64(len(c.buf))
	}
	return messages, bytes, uint64(entrySize(o.chunks[o.sentChunk].buf[o.sentOffset:]))
}

// neverSent is the lowest sequence of which the receiver cannot have heard: all below it were sent, by this process or
// an earlier one, or closed by Open.
func (o *Outbound) neverSent() uint64 {
	limit := max(o.base, o.maxSent)
	if o.fetched != nil {
		limit = max(limit, o.fetched.sentBefore)
	}
	return limit
}

// opened resumes at the first message that the receiver lacks. It returns a *PeerError, and changes nothing, if the
// receiver claims a message that was never sent: what it takes for that would be lost.
func (o *Outbound) opened(f *wire.Opened) error {
	highest, err := o.checkRanges(f.Settled)
	if err != nil {
		return err
	}
	if f.Next < o.base {
		return violation("opened at %d, below the base %d", f.Next, o.base)
	}
	if limit := o.sentBy(IncarnationOf(f.LastEpoch, f.LastIncarnation)); f.Next > limit || highest >= limit {
		return NewPeerError(codeNeverSent, fmt.Sprintf("next is %d, and up to %d are settled, where %d was never sent",
			f.Next, highest, limit))
	}
	o.settleRanges(f.Settled)
	o.state, o.gap, o.checked = open, false, 0
	o.received = f.Next
	o.credit = credit{}
	o.deferred, o.deferrals = nil, 0
	if o.fetched != nil {
		o.fetched.restart(o)
		return nil
	}
	o.seekTo(o.received)
	o.finishReached()
	return nil
}

// acked applies an Ack: progress of the receiver, and credit.
func (o *Outbound) acked(a *AckFrame) error {
	if a.Next != 0 {
		if a.Next > o.sent || a.Next < o.received {
			return violation("ack up to %d of stream %q, which was sent up to %d and acked up to %d",
				a.Next, o.Topic, o.sent, o.received)
		}
		o.received = a.Next
	}
	highest, err := o.checkRanges(a.Settled)
	if err != nil {
		return err
	}
	if limit := o.neverSent(); highest >= limit {
		return violation("settled %d of stream %q, sent below %d", highest, o.Topic, limit)
	}
	o.settleRanges(a.Settled)
	if (a.Messages == 0) != (a.Bytes == 0) {
		return violation("credit of stream %q names messages or bytes alone", o.Topic)
	}
	if a.Messages < o.credit.messages && a.Messages != 0 || a.Bytes < o.credit.bytes && a.Bytes != 0 {
		return violation("credit of stream %q shrank", o.Topic)
	}
	if a.Messages != 0 {
		o.credit.messages, o.credit.bytes, o.wantSent, o.why = a.Messages, a.Bytes, false, ""
	}
	o.finishReached()
	return nil
}

// disconnect resets what belongs to the connection.
func (o *Outbound) disconnect() {
	if o.state != broken {
		o.state = unopened
	}
	o.credit, o.wantSent, o.why, o.askedAt, o.queued = credit{}, false, "", time.Time{}, false
	o.openAfter, o.revoking, o.atOnce = time.Time{}, false, false
	if o.fetched != nil {
		o.fetched.clear(o)
		o.signalRoom()
	}
}

// fail breaks the stream for good: every Waiter gets cause, and nothing is kept.
func (o *Outbound) fail(cause error) {
	o.state, o.cause = broken, cause
	for _, c := range o.chunks {
		o.freeChunk(c)
	}
	o.chunks = nil
	for _, w := range append(o.waitReceived, o.waitHandled...) {
		o.finish(w, cause)
	}
	o.waitReceived, o.waitHandled = nil, nil
	o.account.Leave()
	o.account.Wake()
	o.signalRoom()
	o.signalLine()
}

// Last is the sequence of the message enqueued last.
func (o *Outbound) Last() uint64 { return o.next - 1 }

// Level is how far a message has come.
type Level int

// The levels that a Waiter can wait for.
const (
	Received Level = iota + 1 // the receiver has it, or it is settled
	Handled                   // it is settled
)

// Waiter waits until the messages from First to Last have reached Level. Then Err is set, and Done, which needs room
// for a value, receives one. Err is nil, or the *PeerError of a message that was refused, or the reason why the wait
// ended early; then Lacking are the runs that have not reached Level. The zero Deadline is none.
type Waiter struct {
	Level       Level
	First, Last uint64
	Deadline    time.Time
	Done        chan struct{}
	Err         error
	Lacking     []Range
	// Withdrawable: the caller has the messages, and sends them elsewhere if Err is ErrWithdrawn.
	Withdrawable bool

	refused []uint64
}

// refuse notes that a message was refused. That it could not be handled says that it was received.
func (w *Waiter) refuse(seq uint64, err *PeerError) {
	if w.First <= seq && seq <= w.Last && (w.Level == Handled || CodeOf(err) != wire.Code_CODE_FAILED) {
		w.Err = err
		w.refused = append(w.refused, seq)
	}
}

// finish ends a wait.
func (o *Outbound) finish(w *Waiter, err error) {
	w.Err = err
	if err != nil {
		w.Lacking = o.lacking(w)
	}
	w.Done <- struct{}{}
}

// lacking returns the runs of a wait that have not reached its level: what was refused has not.
func (o *Outbound) lacking(w *Waiter) []Range {
	reached := o.settled.Clone()
	if w.Level == Received {
		reached.Add(1, o.firstUnreceived()-1)
	}
	var runs []Range
	for first := w.First; first <= w.Last; {
		hole, end := reached.Hole(first)
		if hole > w.Last {
			break
		}
		end = min(end, w.Last)
		runs = append(runs, Range{First: hole, Last: end})
		first = end + 1
	}
	for _, seq := range w.refused {
		runs = append(runs, Range{First: seq, Last: seq})
	}
	slices.SortFunc(runs, func(a, b Range) int { return cmp.Compare(a.First, b.First) })
	return runs
}

// finishReached finishes the waiters whose messages have reached their level.
func (o *Outbound) finishReached() {
	n := 0
	for reached := o.firstUnreceived(); n < len(o.waitReceived) && o.waitReceived[n].Last < reached; n++ {
		o.finish(o.waitReceived[n], o.waitReceived[n].Err)
	}
	o.waitReceived = dropFirst(o.waitReceived, n)
	if len(o.waitHandled) == 0 {
		return
	}
	kept := o.waitHandled[:0]
	for _, w := range o.waitHandled {
		if o.settled.Covers(w.First, w.Last) {
			o.finish(w, w.Err)
		} else {
			kept = append(kept, w)
		}
	}
	clear(o.waitHandled[len(kept):])
	o.waitHandled = kept
}

func dropFirst(ws []*Waiter, n int) []*Waiter {
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
		o.finish(w, o.cause)
	case w.Level == Received && w.Last < o.firstUnreceived(), w.Level == Handled && o.settled.Covers(w.First, w.Last):
		o.finish(w, nil)
	case w.Level == Received:
		o.waitReceived = append(o.waitReceived, w)
	default:
		o.waitHandled = append(o.waitHandled, w)
	}
}

// expire fails the waiters whose deadline has passed.
func (o *Outbound) expire(now time.Time, timeout func(*Outbound) error) {
	o.waitReceived = o.expired(o.waitReceived, now, timeout)
	o.waitHandled = o.expired(o.waitHandled, now, timeout)
}

func (o *Outbound) expired(ws []*Waiter, now time.Time, timeout func(*Outbound) error) []*Waiter {
	kept := ws[:0]
	for _, w := range ws {
		if !w.Deadline.IsZero() && now.After(w.Deadline) {
			o.finish(w, timeout(o))
		} else {
			kept = append(kept, w)
		}
	}
	clear(ws[len(kept):])
	return kept
}

// interrupt finishes every waiter with cause, and wakes all callers that wait for room.
func (o *Outbound) interrupt(cause error) {
	for _, waiting := range [...][]*Waiter{o.waitReceived, o.waitHandled} {
		for _, w := range waiting {
			o.finish(w, cause)
		}
	}
	o.waitReceived, o.waitHandled = nil, nil
	o.signalRoom()
	o.signalLine()
}

// Cancel finishes w with context.Canceled if it still waits.
func (o *Outbound) Cancel(w *Waiter) {
	remove := func(ws []*Waiter) []*Waiter {
		if i := slices.Index(ws, w); i >= 0 {
			o.finish(w, context.Canceled)
			return slices.Delete(ws, i, i+1)
		}
		return ws
	}
	o.waitReceived = remove(o.waitReceived)
	o.waitHandled = remove(o.waitHandled)
}
