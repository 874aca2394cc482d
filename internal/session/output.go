package session

import "github.com/buffstreams/watermill-buffstreams/internal/wire"

// Output returns control frames, encoded, and segments, appended to the slice that is passed in: the caller sends the
// control frames first. It returns about limit bytes of segments at most, and more is true if there is more to send.
// Streams take turns with one segment each. Segments of an earlier Output must have been written: their memory is
// reused.
func (c *Client) Output(segments []Segment, limit int) (control []byte, out []Segment, more bool) {
	c.freeLater.free()
	control, c.control, c.replies = c.control, nil, 0
	c.sentSinceTick = c.sentSinceTick || len(control) > 0 || len(c.sendQueue) > 0
	for size := 0; len(c.sendQueue) > 0 && c.phase == established; {
		if size >= limit {
			return control, segments, true
		}
		o := c.sendQueue[0]
		c.sendQueue = c.sendQueue[1:]
		o.queued = false
		if c.refuseTooLarge(o) {
			continue
		}
		s, ok := o.segment(c.peerMaxEntry)
		if !ok {
			c.requestCredit(o)
			continue
		}
		size += len(s.Body)
		c.counting.Sent += s.Count
		c.counting.SentBytes += uint64(len(s.Body))
		segments = append(segments, s)
		if o.hasUnsent() {
			c.schedule(o)
		}
	}
	if len(c.sendQueue) == 0 {
		c.sendQueue = nil // appending to an empty slice of its array would move through that
	}
	if len(segments) > 0 { // a Want counts the credit that they use: it must be sent after them
		return control, segments, len(c.control) > 0
	}
	control, c.control = append(control, c.control...), nil
	return control, segments, false
}

// segment returns the next run of messages in one chunk that the credit covers and of which none with its tag and
// length is larger than most, and counts them as sent. ok is false when there is none.
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

// Due tells whether Output may have something to send.
func (c *Client) Due() bool { return len(c.control) > 0 || len(c.sendQueue) > 0 }

// FreeDue tells whether Output would free memory.
func (c *Client) FreeDue() bool { return len(c.freeLater.buffers) > 0 }

// schedule opens a stream that has messages, or queues an open one for Output.
func (c *Client) schedule(o *Outbound) {
	if c.phase != established || o.queued {
		return
	}
	switch o.state {
	case unopened:
		if o.unsettled() > 0 && o.openAfter.IsZero() && !o.leaving && !o.revoking {
			c.open(o)
		}
	case open:
		o.queued = true
		c.sendQueue = append(c.sendQueue, o)
	}
}

func (o *Outbound) hasUnsent() bool { return o.sent < o.next }

// open sends the stream's Open, which asks for credit as well.
func (c *Client) open(o *Outbound) {
	o.state, o.openSent = opening, true
	messages, bytes, least := uint64(o.unsettled()), uint64(1), uint64(1) // sizes are not known before the messages are fetched
	if o.fetched == nil {
		o.seekTo(o.settled.Next())
		messages, bytes, least = o.unsentAmount()
	}
	o.wantSent, o.base = messages > 0, o.settled.Next()
	c.sendControl(&wire.Frame{Body: &wire.Frame_Open{Open: &wire.Open{
		Handle: o.handle, Publisher: o.id.Publisher[:], Epoch: o.id.Epoch, Secret: o.id.Secret[:], Stream: o.stream,
		Topic: o.Topic, Base: o.base, WantMessages: messages, WantBytes: bytes, LeastBytes: least,
		Incarnation: o.id.incarnation(), Tenure: c.tenureOf(o),
	}}})
}

// requestCredit asks for credit if the stream has something to send.
func (c *Client) requestCredit(o *Outbound) {
	if o.state != open || o.wantSent || o.leaving || o.revoking {
		return
	}
	if messages, bytes, least := o.unsentAmount(); messages > 0 {
		c.sendWant(o, messages, bytes, least)
		o.wantSent = true
	}
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

// sendWant returns the stream's unused credit, and asks for more unless messages is 0.
func (c *Client) sendWant(o *Outbound, messages, bytes, least uint64) {
	c.sendControl(&wire.Frame{Body: &wire.Frame_Want{Want: &wire.Want{
		Handle: o.handle, Messages: messages, Bytes: bytes, LeastBytes: least, SeenMessages: o.credit.messages,
	}}})
	o.credit.dropUnused()
}

// sendControl adds a control frame to those for Output. If it cannot be encoded, the next Tick ends the connection.
func (c *Client) sendControl(f *wire.Frame) {
	out, err := c.enc.AppendControl(c.control, f)
	if err != nil {
		c.unsendable = err
		return
	}
	c.control = out
}
