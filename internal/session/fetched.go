package session

import (
	"slices"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/buffstreams/watermill-buffstreams/internal/wire"
	"github.com/buffstreams/watermill-buffstreams/store"
)

// fetched is what an Outbound has besides when a store keeps its messages. The messages are dropped when they were
// sent, and fetched again after every Opened from the lowest one that the receiver lacks: a stream whose peer is away
// takes no memory, however much waits for it. Nothing of it counts in the Window.
type fetched struct {
	openings   []store.Opening // see store.Stream
	sentBefore uint64          // an earlier process may have sent any message below it
	tail       uint64          // messages below it can be fetched
	generation uint64          // one more with every Opened: what was fetched before is void
	events     []Event
	rejected   map[uint64]struct{} // by the peer, and not confirmed by ConfirmRefused
	tooLarge   map[uint64]struct{} // over the peer's limit, and not confirmed by ConfirmRefused: sending stops at the first
}

// Event is progress of a fetched stream: its messages from First to Last were settled, or, with Err, refused. An Event
// with nothing but Err ends the stream: it is broken for good.
type Event struct {
	First, Last uint64
	Err         *PeerError
}

// fetchWindow is how many encoded bytes of a fetched stream are held before they are sent.
const fetchWindow = 256 << 10

// StartFetched returns a new fetched stream. Everything below base is settled, and an earlier process may have sent any
// message below sent.
func (c *Client) StartFetched(id Identity, stream uint64, topic string, base, sent uint64) *Outbound {
	c.lastHandle++
	o := newOutbound(id, stream, c.lastHandle, topic, Window{}, max(base, 1)) // fetchWindow bounds it
	if sent > o.next {
		o.sentTo, o.openSent = sent, true
	}
	o.fetched = &fetched{tail: o.next, sentBefore: sent, rejected: map[uint64]struct{}{}, tooLarge: map[uint64]struct{}{}}
	c.register(o)
	return o
}

// KnowOpenings says where the stream stood at each opening of its store. It is called before anything is announced.
func (o *Outbound) KnowOpenings(openings []store.Opening) { o.fetched.openings = openings }

// sentBy is neverSent for a receiver that has last heard of the stream from a given incarnation: an earlier one cannot
// have sent what was stored after the next one had begun.
func (o *Outbound) sentBy(last Incarnation) uint64 {
	limit := o.neverSent()
	if o.fetched == nil || o.fetched.openings == nil || last.ID == [16]byte{} {
		return limit
	}
	own := o.id.Lineage
	i := slices.IndexFunc(own, func(one Incarnation) bool { return one.ID == last.ID })
	if i < 0 || i == len(own)-1 {
		return limit
	}
	stored := uint64(1)
	for _, x := range o.fetched.openings {
		if x.Epoch <= own[i+1].Epoch {
			stored = x.Next
		}
	}
	return min(limit, max(o.base, stored))
}

// EndFetched ends a fetched stream. What its receiver still says of it is ignored.
func (c *Client) EndFetched(o *Outbound) {
	if messages, bytes := o.credit.available(); o.state == open && (o.wantSent || messages+bytes > 0) {
		c.sendWant(o, 0, 0, 0) // other streams of the topic can use its credit
	}
	o.fail(ErrEnded)
	o.queued = true // schedule must not queue it again
	if c.phase == disconnected {
		delete(c.handles, o.handle)
	}
}

// ReleaseFetched ends a fetched stream at both ends, if it is open. Everything must be settled.
func (c *Client) ReleaseFetched(o *Outbound) {
	if o.state == open && c.phase >= established {
		c.sendControl(&wire.Frame{Body: &wire.Frame_Release{Release: &wire.Release{Handle: o.handle}}})
		delete(c.handles, o.handle)
		o.fail(ErrEnded)
	}
}

// holds tells whether the peer has rejected a message whose owner has not said that the peer may forget it.
func (f *fetched) holds(seq uint64) bool {
	_, ok := f.rejected[seq]
	return ok
}

// ConfirmRefused says that the owner of a refused message has dealt with it: the peer may forget a message that it has
// rejected, and the stream passes over one that was too large to be sent. Until then the peer repeats its rejection
// after every Opened, so that a process that ends before it has dealt with the message is told once more.
func (c *Client) ConfirmRefused(o *Outbound, seq uint64) {
	_, tooLarge := o.fetched.tooLarge[seq]
	switch {
	case tooLarge:
		delete(o.fetched.tooLarge, seq)
		o.settled.Add(seq, seq)
		if o.state == open {
			o.fetched.drop(o, seq)
			o.skipSettled()
			c.schedule(o)
		}
	case o.fetched.holds(seq):
		delete(o.fetched.rejected, seq)
		if o.state == open {
			c.sendRejectSeen(o, seq)
		}
	}
}

// declineCredit returns credit that comes for a stream that has ended at this end only. If another handle on this
// connection has the same stream, the peer has forgotten this one and its credit.
func (c *Client) declineCredit(a *AckFrame) error {
	o := c.handles[a.Handle]
	if o == nil || a.Messages == 0 {
		return nil
	}
	for _, other := range c.handles {
		if other != o && other.stream == o.stream && other.Topic == o.Topic && other.id.Publisher == o.id.Publisher &&
			(other.state == opening || other.state == open) {
			return nil
		}
	}
	if c.replies++; c.replies > maxReplies {
		return violation("%d grants to a stream that has ended", c.replies)
	}
	o.credit.messages, o.credit.bytes = a.Messages, a.Bytes
	c.sendWant(o, 0, 0, 0)
	return nil
}

// Announce tells a fetched stream that the messages below tail can be fetched.
func (c *Client) Announce(o *Outbound, tail uint64) {
	o.fetched.tail = max(o.fetched.tail, tail)
	c.schedule(o)
}

// NextFetch returns the sequence from which on the stream needs messages, and the generation for Feed. ok is false
// while it needs none: Room says when to ask again.
func (o *Outbound) NextFetch() (from, generation uint64, ok bool) {
	return o.next, o.fetched.generation, o.state == open && o.bytes < fetchWindow
}

// Idle tells whether a fetched stream is not open and knows of no message to send: it will not be opened before the
// message with sequence next is announced.
func (o *Outbound) Idle() (next uint64, idle bool) {
	return o.end(), o.state != open && o.unsettled() == 0
}

// Feed takes fetched messages, from sequence first on. Those between the last one fed and first must be settled. Feed
// does nothing if a new generation has begun.
func (c *Client) Feed(o *Outbound, generation, first uint64, messages [][]byte) {
	if o.state != open || o.fetched.generation != generation || first < o.next {
		return
	}
	o.settled.Add(o.next, first-1)
	o.next = first
	var entry []byte
	for _, m := range messages {
		entry = protowire.AppendBytes(append(entry[:0], entryTag), m)
		o.append(entry)
	}
	o.fetched.tail = max(o.fetched.tail, o.next)
	c.schedule(o)
}

// restart begins a new generation at the lowest message that the receiver lacks.
func (f *fetched) restart(o *Outbound) {
	f.generation++
	f.clear(o)
	o.next, _ = o.settled.Hole(o.received)
	o.gap = o.next > o.received
	o.sent = o.next
	o.signalRoom()
}

// clear drops the messages that were fetched.
func (f *fetched) clear(o *Outbound) {
	o.sent = o.next
	o.chunks, o.pending, o.bytes, o.sentChunk, o.sentOffset = nil, 0, 0, 0, 0
}

// drop frees the chunk of a message that is not sent, if it holds no other: what is large has one of its own.
func (f *fetched) drop(o *Outbound, seq uint64) {
	i := o.chunkOf(seq)
	if i == len(o.chunks) || o.chunks[i].count > 1 || o.chunks[i].hasRoom(1) {
		return
	}
	o.bytes -= len(o.chunks[i].buf)
	o.chunks[i].buf = nil
	o.signalRoom()
}

// dropSent drops the chunks before the sending position.
func (f *fetched) dropSent(o *Outbound) {
	n := 0
	for ; n < len(o.chunks) && o.sent >= o.chunks[n].end(); n++ {
		o.bytes -= len(o.chunks[n].buf)
		o.pending -= o.chunks[n].count
	}
	if n == 0 {
		return
	}
	o.chunks = o.chunks[n:]
	if o.sentChunk -= n; o.sentChunk < 0 {
		o.sentChunk, o.sentOffset = 0, 0
	}
	o.signalRoom()
}

// unsettled is the number of messages known to the stream that are not settled.
func (f *fetched) unsettled(o *Outbound) int {
	if f.tail <= o.settled.Next() {
		return 0
	}
	return int(f.tail-o.settled.Next()) - o.settled.Above()
}

// Events returns the progress of a fetched stream since the last call.
func (o *Outbound) Events() []Event {
	events := o.fetched.events
	o.fetched.events = nil
	return events
}

// WithEvents returns the fetched streams with Events since the last call.
func (c *Client) WithEvents() []*Outbound {
	out := c.withEvents
	c.withEvents = nil
	return out
}

// noteEvents lists a fetched stream for WithEvents if it has any.
func (c *Client) noteEvents(o *Outbound) {
	if o.fetched != nil && len(o.fetched.events) > 0 && !slices.Contains(c.withEvents, o) {
		c.withEvents = append(c.withEvents, o)
	}
}

// Resume says which tenure of a fetched stream goes on. In the first one nothing was elsewhere; in any other, what an
// earlier process may have sent can come twice. It is called before anything is announced.
func (o *Outbound) Resume(tenure uint64) {
	o.tenure = max(1, tenure)
	if o.tenure > 1 && o.sentTo > o.settled.Next() {
		o.repeats(o.settled.Next(), o.sentTo-1)
	}
}
