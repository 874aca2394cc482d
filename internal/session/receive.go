package session

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/buffstreams/watermill-buffstreams/internal/flow"
	"github.com/buffstreams/watermill-buffstreams/internal/wire"
)

// Receive applies one frame, whose payload Verify has returned. An error ends the connection: a *PeerError if the peer
// ends it, a *ProtocolError if the peer broke the protocol. After Receive, WithEvents and Refused may have something to
// return.
func (c *Client) Receive(payload []byte, now time.Time) error {
	frame, err := Decode(payload)
	if err != nil {
		return err
	}
	c.lastHeard = now
	if c.phase >= established { // a greeting that is refused says nothing of what was sent before
		c.peer.hear()
	}
	switch f := frame.(type) {
	case *wire.Welcome:
		c.peer.hear()
		return c.welcomed(f)
	case *wire.Failure:
		return &PeerError{code: f.Code, Reason: f.Reason}
	}
	if c.phase < established {
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
		if c.replies++; c.replies > maxReplies {
			return violation("%d pings while none was answered yet", c.replies)
		}
		c.sendControl(&wire.Frame{Body: &wire.Frame_Pong{Pong: &wire.Pong{Id: f.Id}}})
	case *wire.Pong:
		c.explained(f)
	case *wire.Returned:
		return c.returned(f)
	case *wire.Goaway:
		c.phase = draining
		c.Unreachable()
	default:
		return violation("unexpected %T", frame)
	}
	return nil
}

// maxReplies is how many answers that the peer provoked may wait to be sent.
const maxReplies = 1024

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
	if f.MaxMessage == 0 {
		return violation("max_message of the welcome is 0")
	}
	frame, message := int(min(f.MaxFrame, math.MaxInt32)), int(min(f.MaxMessage, math.MaxInt32))
	c.phase, c.peerMaxEntry = established, min(frame-publishOverhead, EncodedSize(message))
	c.setPresence(flow.Present)
	c.welcomeMoves(f)
	for _, o := range c.inOrder() {
		c.schedule(o)
	}
	return nil
}

// hasEnded tells whether a handle was that of a stream that has ended. The peer may not know yet and still send frames
// for it.
func (c *Client) hasEnded(handle uint64) bool {
	o := c.handles[handle]
	return o == nil && 0 < handle && handle <= c.lastHandle || o != nil && o.state == broken
}

func (c *Client) opened(f *wire.Opened) error {
	if c.hasEnded(f.Handle) {
		return nil
	}
	o := c.handles[f.Handle]
	if o == nil || o.state != opening {
		return violation("opened a stream that was not asked for")
	}
	if f.Code == wire.Code_CODE_LIMIT { // a limit that may pass: Tick tries again
		o.deferOpen(&PeerError{code: f.Code, Reason: f.Reason}, c.lastHeard)
		return nil
	}
	copied := o.id.checkLineage(f)
	if f.Code != wire.Code_CODE_UNSPECIFIED {
		if f.Code != wire.Code_CODE_FENCED || copied == nil {
			copied = &PeerError{code: f.Code, Reason: f.Reason}
		}
		c.failStream(o, copied)
		return nil
	}
	err := error(copied)
	if copied == nil {
		err = o.opened(f)
	}
	if claim := (*PeerError)(nil); errors.As(err, &claim) {
		c.failStream(o, claim)
		c.handles[o.handle] = o // the peer has it open: declineCredit returns what it grants
		return nil
	}
	if err != nil {
		return err
	}
	if c.moves() {
		c.noteGroups(o.Topic, f.Groups)
	}
	c.noteEvents(o)
	c.schedule(o)
	return nil
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
	o.deferred, o.deferrals = nil, 0
	if o.fetched != nil {
		o.fetched.restart(o)
		return nil
	}
	o.seekTo(o.received)
	o.finishReached()
	return nil
}

func (c *Client) acked(f *AckFrame) error {
	if c.hasEnded(f.Handle) {
		return c.declineCredit(f)
	}
	o := c.handles[f.Handle]
	if o == nil || o.state != open {
		return violation("ack of a stream that is not open")
	}
	if err := o.acked(f); err != nil {
		return err
	}
	c.noteEvents(o)
	if f.Messages != 0 && o.hasUnsent() {
		c.schedule(o)
	}
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

func (c *Client) rejected(f *wire.Reject) error {
	if o := c.released[f.Handle]; o != nil && 0 < f.Sequence && f.Sequence < o.sent && !o.settled.Has(f.Sequence) {
		c.refuse(o, f.Sequence, &PeerError{code: f.Code, Reason: f.Reason})
	}
	if c.hasEnded(f.Handle) {
		return nil
	}
	o := c.handles[f.Handle]
	if o != nil && o.state == open && f.Sequence == 0 { // refuses the whole stream
		c.sendControl(&wire.Frame{Body: &wire.Frame_Release{Release: &wire.Release{Handle: f.Handle}}})
		c.failStream(o, &PeerError{code: f.Code, Reason: f.Reason})
		return nil
	}
	if o == nil || o.state != open || f.Sequence == 0 || f.Sequence >= o.sent {
		return violation("reject of a message that was not sent")
	}
	if !o.settled.Has(f.Sequence) {
		if o.fetched != nil {
			o.fetched.rejected[f.Sequence] = struct{}{}
		}
		c.refuse(o, f.Sequence, &PeerError{code: f.Code, Reason: f.Reason})
		o.finishReached()
	}
	if o.fetched == nil || !o.fetched.holds(f.Sequence) {
		c.sendRejectSeen(o, f.Sequence)
	}
	return nil
}

func (c *Client) sendRejectSeen(o *Outbound, seq uint64) {
	c.sendControl(&wire.Frame{Body: &wire.Frame_RejectSeen{RejectSeen: &wire.RejectSeen{Handle: o.handle, Sequence: seq}}})
}
