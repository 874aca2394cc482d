package session

import (
	"math"
	"time"

	"github.com/buffstreams/watermill-buffstreams/internal/wire"
)

// Receive takes one frame payload, its checksum already taken off. An error ends the connection.
func (c *Client) Receive(payload []byte, now time.Time) error {
	frame, err := Decode(payload)
	if err != nil {
		return err
	}
	c.heard = now
	switch f := frame.(type) {
	case *wire.Welcome:
		return c.welcomed(f)
	case *wire.Failure:
		return &PeerError{code: f.Code, Reason: f.Reason}
	}
	if c.phase < ready {
		return violation("%T before the welcome", frame)
	}
	switch f := frame.(type) {
	case *AckFrame:
		return c.acked(f)
	case *wire.Opened:
		return c.opened(f)
	case *wire.Reject:
		return c.rejected(f)
	case *wire.Ping:
		if c.pongs++; c.pongs > maxPongs {
			return violation("%d pings while none was answered yet", c.pongs)
		}
		c.send(&wire.Frame{Body: &wire.Frame_Pong{Pong: &wire.Pong{Id: f.Id}}})
	case *wire.Pong:
	case *wire.Goaway:
		c.phase = draining
	default:
		return violation("unexpected %T", frame)
	}
	return nil
}

// maxPongs is how many answers to pings may wait to be sent.
const maxPongs = 1024

func (c *Client) welcomed(f *wire.Welcome) error {
	if c.phase != greeting {
		return violation("second welcome")
	}
	if f.Version != Version {
		return &PeerError{code: wire.Code_CODE_VERSION, Reason: "unknown version in welcome"}
	}
	if f.MaxFrame < MinFrame {
		return violation("frames of %d bytes are not enough, the least is %d", f.MaxFrame, MinFrame)
	}
	c.phase, c.maxFrame, c.largest = ready, int(min(f.MaxFrame, math.MaxInt32)), 0
	if f.MaxMessage > 0 {
		c.largest = uint64(EncodedSize(int(min(f.MaxMessage, math.MaxInt32))))
	}
	for _, o := range c.inOrder() {
		c.schedule(o)
	}
	return nil
}

// ended tells whether a handle belongs to a stream that is over: what the peer still says of it has crossed that.
func (c *Client) ended(handle uint64) bool {
	o := c.handles[handle]
	return o == nil && 0 < handle && handle <= c.last || o != nil && o.state == broken
}

func (c *Client) opened(f *wire.Opened) error {
	if c.ended(f.Handle) {
		return nil
	}
	o := c.handles[f.Handle]
	if o == nil || o.state != opening {
		return violation("opened a stream that was not asked for")
	}
	if f.Code == wire.Code_CODE_LIMIT { // it may pass
		o.state = unopened
		return nil
	}
	if f.Code != wire.Code_CODE_UNSPECIFIED {
		c.fail(o, &PeerError{code: f.Code, Reason: f.Reason})
		return nil
	}
	if err := o.opened(f); err != nil {
		return err
	}
	c.note(o)
	c.schedule(o)
	return nil
}

func (c *Client) acked(f *AckFrame) error {
	if c.ended(f.Handle) {
		return c.decline(f)
	}
	o := c.handles[f.Handle]
	if o == nil || o.state != open {
		return violation("ack of a stream that is not open")
	}
	if err := o.acked(f); err != nil {
		return err
	}
	c.note(o)
	if f.Messages != 0 && o.unsent() {
		c.schedule(o)
	}
	return nil
}

func (c *Client) rejected(f *wire.Reject) error {
	if c.ended(f.Handle) {
		return nil
	}
	o := c.handles[f.Handle]
	if o != nil && o.state == open && f.Sequence == 0 { // of the stream as a whole: nothing more comes for it
		c.send(&wire.Frame{Body: &wire.Frame_Release{Release: &wire.Release{Handle: f.Handle}}})
		c.fail(o, &PeerError{code: f.Code, Reason: f.Reason})
		return nil
	}
	if o == nil || o.state != open || f.Sequence == 0 || f.Sequence >= o.sent {
		return violation("reject of a message that was not sent")
	}
	c.send(&wire.Frame{Body: &wire.Frame_RejectSeen{RejectSeen: &wire.RejectSeen{
		Handle: f.Handle, Sequence: f.Sequence,
	}}})
	if !o.settled.Has(f.Sequence) {
		c.refuse(o, f.Sequence, &PeerError{code: f.Code, Reason: f.Reason})
		o.wake()
	}
	return nil
}

// refuse settles a message that will not be handled and keeps it for Refused.
func (c *Client) refuse(o *Outbound, seq uint64, err *PeerError) {
	for _, waiting := range [...][]*Waiter{o.waitReceived, o.waitHandled} {
		for _, w := range waiting {
			if w.First <= seq && seq <= w.Last {
				w.Err = err
			}
		}
	}
	if o.relay != nil {
		o.settled.Add(seq, seq)
		o.relay.events = append(o.relay.events, Event{First: seq, Last: seq, Err: err})
		c.note(o)
		return
	}
	message := append([]byte(nil), o.chunks[o.chunkOf(seq)].message(seq)...)
	c.refused = append(c.refused, Refused{Topic: o.Topic, Sequence: seq, Message: message, Err: err})
	o.settle(seq, seq)
}

// fail breaks a stream for good, forgets it and refuses everything that it still keeps. The next message to its topic
// begins a new one.
func (c *Client) fail(o *Outbound, err *PeerError) {
	delete(c.handles, o.handle)
	if o.relay != nil {
		o.relay.events = append(o.relay.events, Event{Err: err})
		c.note(o)
		o.fail(err)
		return
	}
	for {
		seq, _ := o.settled.Hole(1)
		if seq >= o.next {
			break
		}
		c.refuse(o, seq, err)
	}
	o.fail(err)
	delete(c.streams, o.Topic)
}

// Refused returns the messages that were refused since the last call.
func (c *Client) Refused() []Refused {
	out := c.refused
	c.refused = nil
	return out
}
