package session

import (
	"fmt"
	"slices"
)

// checkBooks tells what is wrong with a Client between two calls: all that is counted or found in two places must agree.
func checkBooks(c *Client) error {
	b := books{c: c}
	b.checkStreams()
	for _, handle := range sortedKeys(c.handles) {
		o := c.handles[handle]
		b.name = fmt.Sprintf("stream %d of %q", handle, o.Topic)
		b.checkConnection(o)
		b.checkCallers(o)
		if o.state == broken {
			b.must(o.chunks == nil && o.bytes == 0, "what has ended keeps nothing")
			continue
		}
		b.checkPosition(o)
		b.checkChunks(o)
		if o.fetched == nil {
			b.checkSettled(o)
		} else {
			b.checkFetched(o)
		}
	}
	return b.err
}

// books are those of a Client.
type books struct {
	c    *Client
	name string // of what is being checked
	err  error  // the first thing that is wrong
}

func (b *books) must(holds bool, format string, args ...any) {
	if !holds && b.err == nil {
		b.err = fmt.Errorf("%s: %s", b.name, fmt.Sprintf(format, args...))
	}
}

// checkStreams checks that each stream is where it belongs, and once.
func (b *books) checkStreams() {
	c := b.c
	b.name = "client"
	places := map[*Outbound]int{}
	for _, o := range c.order {
		places[o]++
	}
	for handle, o := range c.handles {
		b.must(o.handle == handle && handle <= c.lastHandle, "handle %d is that of a stream with %d", handle, o.handle)
		b.must(o.state == broken || places[o] == 1, "stream %d is %d times in order", handle, places[o])
	}
	for name, o := range c.streams {
		b.must(c.phase == disconnected && o.state == broken || c.handles[o.handle] == o, "%q has no handle", name)
		b.must(o.name() == name && !o.unnamed && o.fetched == nil, "%q is that of another stream", name)
	}
	b.must(c.latest == nil || c.streams[c.latestName] == c.latest, "the latest stream is another one")
	if c.phase == disconnected {
		b.must(len(c.control) == 0 && len(c.sendQueue) == 0, "something is to be sent without a connection")
	}
}

// checkConnection checks what belongs to the connection.
func (b *books) checkConnection(o *Outbound) {
	c, places := b.c, 0
	for _, other := range c.sendQueue {
		if other == o {
			places++
		}
	}
	messages, bytes := o.credit.available()
	b.must(o.credit.usedMessages <= o.credit.messages && o.credit.usedBytes <= o.credit.bytes, "credit is %+v", o.credit)
	if o.state != broken {
		b.must(places == 1 || places == 0 && !o.queued, "it is queued: %v, %d times", o.queued, places)
		b.must(o.state == open || o.credit == credit{}, "it is not open and has credit %+v", o.credit)
		b.must(!o.wantSent || messages+bytes == 0, "it asks for credit and has %d, %d", messages, bytes)
		b.must(c.phase >= established || o.state == unopened && !o.revoking, "it is open without a connection")
	}
	b.must(!o.revoking || o.asked && o.sentTo > 0 || o.state == broken, "it is revoked where nothing was sent")
	b.must(o.sentTo == 0 || o.openSent, "it was sent and not opened")
	b.must(o.fetched != nil || o.sentTo <= o.maxSent, "it was sent up to %d of %d", o.sentTo, o.maxSent)
	b.must(o.openAfter.IsZero() || o.deferred != nil, "it waits for nothing")
}

// checkCallers checks those that wait: whatever they wait for has not happened, and for whom there is room was called.
func (b *books) checkCallers(o *Outbound) {
	if o.cause != nil {
		b.must(len(o.waitReceived)+len(o.waitHandled) == 0, "a call waits for what has ended")
		return
	}
	for _, w := range o.waitReceived {
		b.must(w.Last >= o.firstUnreceived(), "a call waits for %d, which was received", w.Last)
	}
	for _, w := range o.waitHandled {
		b.must(!o.settled.Covers(w.First, w.Last), "a call waits for %d to %d, which are settled", w.First, w.Last)
	}
	var called, messages, bytes int
	for _, t := range o.line.turns {
		b.must(t.stream == o, "a call stands in two lines")
		if t.called {
			called, messages, bytes = called+1, messages+1, bytes+t.need
		}
	}
	b.must(o.line.called == called && o.line.aside == Amount{Messages: messages, Bytes: bytes}, "%d calls have %v, counted are %d with %v",
		called, Amount{Messages: messages, Bytes: bytes}, o.line.called, o.line.aside)
	b.must(o.line.short == nil || slices.Contains(o.line.turns, o.line.short), "who waits for the budget is not in line")
}

// checkPosition checks the sending position, and what bounds it.
func (b *books) checkPosition(o *Outbound) {
	known := max(o.maxSent, o.received, o.checked, o.settled.End()) // next of a fetched stream goes back
	b.must(o.sent <= o.next && known <= o.end(), "of %d messages %d are sent, and %d are known", o.next-1, o.sent-1, known-1)
	b.must(o.base <= o.settled.Next(), "it was opened at %d", o.base)
	if !o.hasUnsent() || o.state != open || o.settled.Has(o.sent) {
		return
	}
	b.must(o.sentChunk < len(o.chunks), "the next message is in no chunk")
	if b.err != nil {
		return
	}
	c := o.chunks[o.sentChunk]
	b.must(c.first <= o.sent && o.sent <= c.end(), "%d is next, in the chunk from %d", o.sent, c.first)
	if b.err == nil {
		b.must(o.sentOffset == c.offsetAfter(0, o.sent-c.first), "%d is next, at %d in the chunk from %d", o.sent, o.sentOffset, c.first)
	}
}

// checkChunks checks that the chunks have all messages up to next, each once.
func (b *books) checkChunks(o *Outbound) {
	pending, bytes := 0, 0
	for i, c := range o.chunks {
		if i > 0 && o.fetched == nil {
			b.must(c.first == o.chunks[i-1].end(), "a chunk begins at %d, behind one up to %d", c.first, o.chunks[i-1].end())
		}
		pending += c.live
		bytes += len(c.buf)
		at, largest := 0, 0
		for range c.count {
			if at >= len(c.buf) {
				break
			}
			size := entrySize(c.buf[at:])
			at, largest = at+size, max(largest, size)
		}
		b.must(at == len(c.buf) && c.largest >= largest, "the chunk from %d has other messages than it says", c.first)
		b.must(c.count > 0 && (c.buf != nil || c.live == 0 || o.fetched != nil), "the chunk from %d has no memory", c.first)
	}
	if n := len(o.chunks); n > 0 {
		b.must(o.chunks[n-1].end() == o.next, "the last chunk ends at %d, next is %d", o.chunks[n-1].end(), o.next)
	}
	b.must(o.bytes == bytes, "it keeps %d bytes, counted are %d", bytes, o.bytes)
	b.must(o.pending == pending, "it keeps %d messages, counted are %d", pending, o.pending)
}

// checkSettled compares the messages that are kept with those that are settled.
func (b *books) checkSettled(o *Outbound) {
	b.must(o.pending == int(o.next-o.settled.Next())-o.settled.Above(), "%d are pending, next is %d, settled are %s", o.pending, o.next,
		pairsOf(&o.settled))
	for i, c := range o.chunks {
		live := 0
		for first, last := range o.settled.Holes(c.first, c.end()) {
			live += int(last - first + 1)
		}
		b.must(c.live == live, "%d in the chunk from %d are not settled, counted are %d", live, c.first, c.live)
		b.must(live > 0 || i > 0 && (c.buf == nil || i == len(o.chunks)-1), "the chunk from %d is needed no longer", c.first)
	}
	b.must(len(o.chunks) == 0 || o.chunks[0].first <= o.settled.Next(), "%d is in no chunk", o.settled.Next())
	b.must(slices.IsSortedFunc(o.ages.marks, func(x, y mark) int { return int(x.seq) - int(y.seq) }), "ages are not in order")
}

// checkFetched checks what a stream has besides whose messages a store keeps.
func (b *books) checkFetched(o *Outbound) {
	f := o.fetched
	b.must(o.state == open || len(o.chunks) == 0, "it is not open and keeps messages")
	for _, c := range o.chunks {
		b.must(c.end() > o.sent, "the chunk up to %d was sent", c.end())
	}
	for seq := range f.rejected {
		b.must(o.settled.Has(seq), "%d was rejected and is not settled", seq)
	}
	for seq := range f.tooLarge {
		b.must(!o.settled.Has(seq), "%d is too large and settled", seq)
	}
	b.must(len(f.events) == 0 || slices.Contains(b.c.withEvents, o), "its events are told to none")
}
