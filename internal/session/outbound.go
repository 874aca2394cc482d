package session

import (
	"time"

	"github.com/buffstreams/watermill-buffstreams/internal/flow"
)

// Identity names a publisher across its connections and restarts. The Secret proves that a stream is its own; of two
// processes with the same Publisher, the receiver serves the one with the higher Epoch.
type Identity struct {
	Publisher [16]byte
	Epoch     uint64
	Secret    [16]byte
	// Lineage has the incarnations of the identity that are known, the present one last. Nil: it has none, as it does
	// not outlive the process.
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
	line         line          // callers that wait for room
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

// UnreceivedUpTo is Unreceived for the messages up to a sequence.
func (o *Outbound) UnreceivedUpTo(last uint64) int {
	if first := o.firstUnreceived(); first <= last {
		return int(last + 1 - first)
	}
	return 0
}

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

// neverSent is the lowest sequence of which the receiver cannot have heard: all below it were sent, by this process or
// an earlier one, or closed by Open.
func (o *Outbound) neverSent() uint64 {
	limit := max(o.base, o.maxSent)
	if o.fetched != nil {
		limit = max(limit, o.fetched.sentBefore)
	}
	return limit
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

// Head is the lowest sequence that is not settled.
func (o *Outbound) Head() uint64 { return o.settled.Next() }

// HasRoom tells whether a small message would be sent without waiting for room or credit.
func (o *Outbound) HasRoom() bool {
	return o.cause == nil && !o.line.waits() && o.fits(1, 1) &&
		!(o.state == open && o.wantSent && o.hasUnsent())
}
