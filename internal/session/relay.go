package session

import (
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
)

// relay makes an Outbound the last stretch of a store that keeps the messages itself: what was sent is forgotten, and
// after every Opened the messages are fetched again from where the receiver then stands. So a stream whose peer is away
// takes no memory, however much waits for it.
type relay struct {
	tail       uint64 // what is below it can be fetched
	generation uint64 // one more with every Opened: what was fetched before is void
	events     []Event
}

// Event is news of messages of a relay: they were settled; with Err, because the peer refused them. An Err without a run
// means that the stream is broken for good.
type Event struct {
	First, Last uint64
	Err         *PeerError
}

// relayWindow is how many bytes a relay fetches ahead of its connection.
const relayWindow = 256 << 10

// Relay makes a stream whose messages are fetched. Everything below base is settled.
func (c *Client) Relay(id Identity, stream uint64, topic string, base uint64) *Outbound {
	c.last++
	o := newOutbound(id, stream, c.last, topic, Window{}, max(base, 1)) // relayWindow bounds it, not the budget
	o.relay = &relay{tail: o.next}
	c.add(o)
	return o
}

// EndRelay forgets a relay. What its receiver says of it later is ignored.
func (c *Client) EndRelay(o *Outbound) {
	if messages, bytes := o.credit.left(); o.state == open && (o.wanting || messages+bytes > 0) {
		c.want(o, 0, 0, 0) // the topic's other streams can use what it had
	}
	o.fail(ErrEnded)
	o.queued = true // never again in line
}

// decline gives back credit that comes for a relay that has ended, unless its successor on this connection has the stream: the
// peer has forgotten the handle then, and its credit with it.
func (c *Client) decline(a *AckFrame) error {
	o := c.handles[a.Handle]
	if o == nil || o.relay == nil || a.Messages == 0 {
		return nil
	}
	for _, other := range c.handles {
		if other != o && other.stream == o.stream && other.Topic == o.Topic && other.id.Publisher == o.id.Publisher &&
			(other.state == opening || other.state == open) {
			return nil
		}
	}
	if c.pongs++; c.pongs > maxPongs {
		return violation("%d grants to a stream that has ended", c.pongs)
	}
	o.credit.messages, o.credit.bytes = a.Messages, a.Bytes
	c.want(o, 0, 0, 0)
	return nil
}

// Announce says that the messages below tail can be fetched.
func (c *Client) Announce(o *Outbound, tail uint64) {
	o.relay.tail = max(o.relay.tail, tail)
	c.schedule(o)
}

// Wants returns the next message to fetch, and the generation to give with it; ok is false while nothing is wanted.
// Room tells when to ask again.
func (o *Outbound) Wants() (from, generation uint64, ok bool) {
	return o.next, o.relay.generation, o.state == open && o.bytes < relayWindow
}

// Quiet tells that nothing is on its way and nothing is known to wait: the stream will not be opened before the message
// with the returned sequence is announced.
func (o *Outbound) Quiet() (next uint64, quiet bool) {
	return o.known(), o.state != open && o.waits() == 0
}

// Feed takes fetched messages, the first of them with sequence first; between it and the last one fed, all are settled.
// It does nothing when the generation is over.
func (c *Client) Feed(o *Outbound, generation, first uint64, messages [][]byte) {
	if o.state != open || o.relay.generation != generation || first < o.next {
		return
	}
	if first > o.next {
		o.settled.Add(o.next, first-1)
		o.next = first
	}
	var entry []byte
	for _, m := range messages {
		entry = protowire.AppendBytes(append(entry[:0], entryTag), m)
		o.append(entry)
	}
	o.relay.tail = max(o.relay.tail, o.next)
	c.schedule(o)
}

// restart begins a new generation at the lowest message that the receiver lacks.
func (r *relay) restart(o *Outbound) {
	r.generation++
	r.clear(o)
	o.next, _ = o.settled.Hole(o.received)
	o.gap = o.next > o.received
	o.sent = o.next
	o.release()
}

// clear drops what was fetched.
func (r *relay) clear(o *Outbound) {
	o.sent = o.next
	o.chunks, o.pending, o.bytes, o.sentAt, o.sentOff = nil, 0, 0, 0, 0
}

// sentChunk forgets the chunks that are behind the sending position as a whole.
func (r *relay) sentChunk(o *Outbound) {
	n := 0
	for ; n < len(o.chunks) && o.sent >= o.chunks[n].end(); n++ {
		o.bytes -= len(o.chunks[n].buf)
		o.pending -= o.chunks[n].count
	}
	if n == 0 {
		return
	}
	o.chunks = o.chunks[n:]
	if o.sentAt -= n; o.sentAt < 0 {
		o.sentAt, o.sentOff = 0, 0
	}
	o.release()
}

// waits is the number of messages that the store still has to deliver, at least.
func (r *relay) waits(o *Outbound) int {
	if r.tail <= o.settled.Next() {
		return 0
	}
	return int(r.tail-o.settled.Next()) - o.settled.Above()
}

// Events returns the news since the last call.
func (o *Outbound) Events() []Event {
	events := o.relay.events
	o.relay.events = nil
	return events
}

// Relays returns the relays that have news.
func (c *Client) Relays() []*Outbound {
	out := c.news
	c.news = nil
	return out
}

// note puts a relay with events on the list of those that have news.
func (c *Client) note(o *Outbound) {
	if o.relay != nil && len(o.relay.events) > 0 && !slices.Contains(c.news, o) {
		c.news = append(c.news, o)
	}
}
