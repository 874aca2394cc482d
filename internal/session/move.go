package session

import (
	"slices"
	"time"

	"github.com/buffstreams/watermill-buffstreams/internal/buffers"
	"github.com/buffstreams/watermill-buffstreams/internal/wire"
)

// A stream can move from the Client of one address to that of another, with everything that is not settled and with the
// callers that wait for it. Each stay is a tenure, which the Open names, so that receivers can tell an older one.
//
// What was never sent in the present tenure is free to go. What was sent has to be taken back: the Client revokes the
// stream, the receiver gives back what no consumer has, waits for those that have something, and answers. A receiver
// that is gone or silent does not answer; then the stream goes without an answer, what was sent can come twice, and the
// receiver is told to void the tenure when it is met again.

// FeatureMove is what both sides list that know Revoke, Returned and tenures.
const FeatureMove = "move"

// move is what an Outbound knows of its moves.
type move struct {
	unnamed  bool       // it is not found by its topic, and can be detached
	tenure   uint64     // from 1
	openSent bool       // the receiver has got an Open of this tenure, or may have
	sentTo   uint64     // lowest sequence above all that were sent in this tenure; 0: none was
	again    *Watermark // what another receiver may have had; nil: nothing

	lapsed   int       // messages that can come twice because of tenures that have ended since the last Detach
	leaving  bool      // the stream is to move: it sends nothing more
	since    time.Time // when that began
	revoking bool      // Revoke was sent on this connection
	asked    bool      // it was sent in this tenure: the receiver may have void what it had
	atOnce   bool      // and a second one, that does not wait for consumers
	inHand   uint64    // messages that consumers still have, as the receiver says
}

// StartStream returns a new stream of a topic that can move. It is not one that Stream returns. With ephemeral it is as
// those of Ephemeral.
func (c *Client) StartStream(id Identity, number uint64, topic string, ephemeral bool) *Outbound {
	c.lastHandle++
	o := newOutbound(id, number, c.lastHandle, topic, c.cfg.Window, 1)
	o.unnamed, o.ephemeral = true, ephemeral
	o.freeLater, o.counting = &c.freeLater, &c.counting
	o.setPresence(c.presence)
	c.register(o)
	return o
}

// features is what the Client lists in its Hello.
func (c *Client) features() []string {
	if c.cfg.MoveAfter <= 0 {
		return nil
	}
	return []string{FeatureMove}
}

// NothingSent tells whether nothing was sent in the present tenure.
func (o *Outbound) NothingSent() bool { return o.sentTo == 0 }

// Leaving tells whether the stream is being taken back from its receiver, or has come back. It ends without a call of
// Stay when a receiver is met that does not know how.
func (o *Outbound) Leaving() bool { return o.leaving }

// MayMove tells whether a stream can be detached now.
func (c *Client) MayMove(o *Outbound) bool {
	switch {
	case o.cause != nil:
		return false
	case o.sentTo == 0 || o.unsettled() == 0:
		return true
	}
	return c.moves() && (c.peer.gone || c.peer.silent)
}

// moves tells whether both sides know moves of what was sent. Of a peer that has not been met yet, an earlier process
// may have known it: it is taken for one that does.
func (c *Client) moves() bool { return c.cfg.MoveAfter > 0 && (c.peer.able || !c.peer.met) }

// Leave begins to take a stream back from the receiver. MayMove tells when it has come back. Leave returns false, and
// the stream goes on, if the receiver does not know how; that can be found out later, too: see Leaving.
func (c *Client) Leave(o *Outbound, now time.Time) bool {
	if o.cause != nil || !c.moves() && !c.MayMove(o) {
		c.Stay(o)
		return false
	}
	if o.leaving {
		return true
	}
	o.leaving, o.since = true, now
	c.revoke(o)
	return true
}

// Stay ends what Leave began: the stream goes on where it is.
func (c *Client) Stay(o *Outbound) {
	if !o.leaving {
		return
	}
	o.leaving = false
	if o.revoking { // it goes on when the receiver has answered
		return
	}
	o.resume()
	c.schedule(o)
}

// resume begins a new tenure at the same receiver if that may have taken the stream for revoked, and its answer was
// lost.
func (o *Outbound) resume() {
	if o.asked {
		o.lapse(nil, 0)
	}
}

// revoke sends Revoke for a stream that leaves, unless nothing was sent or one was sent already.
func (c *Client) revoke(o *Outbound) {
	if c.phase < established || !c.moves() || o.revoking || o.sentTo == 0 || o.cause != nil {
		return
	}
	o.revoking, o.asked, o.wantSent = true, true, false
	o.credit.dropUnused()
	c.sendRevoke(o.handle, o.revocation(o.tenure+1), false)
}

// revocation is what the receiver needs to know to void the tenures below one.
func (o *Outbound) revocation(tenure uint64) *leftTenure {
	return &leftTenure{id: o.id, stream: o.stream, topic: o.Topic, tenure: tenure}
}

func (c *Client) sendRevoke(handle uint64, l *leftTenure, atOnce bool) {
	c.sendControl(&wire.Frame{Body: &wire.Frame_Revoke{Revoke: &wire.Revoke{
		Handle: handle, Publisher: l.id.Publisher[:], Epoch: l.id.Epoch, Secret: l.id.Secret[:], Stream: l.stream,
		Topic: l.topic, Tenure: l.tenure, AtOnce: atOnce,
	}}})
}

// returned applies a Returned.
func (c *Client) returned(f *wire.Returned) error {
	if c.settleLeft(f) {
		return nil
	}
	o := c.handles[f.Handle]
	if o == nil || !o.revoking {
		if c.hasEnded(f.Handle) {
			return nil
		}
		return violation("returned a stream that was not revoked")
	}
	if f.Next > o.neverSent() {
		return violation("returned up to %d of stream %q, sent below %d", f.Next, o.Topic, o.neverSent())
	}
	for _, pairs := range [...][]uint64{f.Settled, f.Returned} {
		if highest, err := o.checkRanges(pairs); err != nil {
			return err
		} else if highest >= o.neverSent() {
			return violation("returned %d of stream %q, sent below %d", highest, o.Topic, o.neverSent())
		}
	}
	o.settleRanges(f.Settled)
	o.finishReached()
	c.noteEvents(o)
	if o.inHand = f.InHand; f.InHand > 0 && !o.atOnce {
		return nil
	}
	c.sendControl(&wire.Frame{Body: &wire.Frame_Release{Release: &wire.Release{Handle: o.handle}}})
	o.lapse(f.Returned, f.Next)
	c.peer.changed = true
	c.rehandle(o)
	o.disconnect()
	c.schedule(o)
	return nil
}

// rehandle gives a stream a handle that is new on this connection.
func (c *Client) rehandle(o *Outbound) {
	delete(c.handles, o.handle)
	c.order = slices.DeleteFunc(c.order, func(other *Outbound) bool { return other == o })
	c.lastHandle++
	o.handle = c.lastHandle
	c.register(o)
}

// Detach takes a stream for which MayMove is true out of the Client. repeats is how many of its messages can come twice
// because of what has become of it there. Another Client must Adopt it.
func (c *Client) Detach(o *Outbound) (repeats int) {
	if o.sentTo > 0 && o.unsettled() > 0 { // the receiver has not answered
		l := o.revocation(o.tenure + 1)
		c.peer.left = append(c.peer.left, l)
		if c.phase >= established && c.peer.able {
			l.handle = o.handle
			if !o.atOnce {
				c.sendRevoke(o.handle, l, true)
			}
		}
		o.lapse(nil, 0)
	} else if o.openSent {
		if c.phase >= established {
			c.sendControl(&wire.Frame{Body: &wire.Frame_Release{Release: &wire.Release{Handle: o.handle}}})
		}
		o.lapse(nil, 0)
	}
	delete(c.handles, o.handle)
	c.handles = buffers.Shrink(c.handles, &c.mostHandles)
	same := func(other *Outbound) bool { return other == o }
	c.order = slices.DeleteFunc(c.order, same)
	c.sendQueue = slices.DeleteFunc(c.sendQueue, same)
	c.withEvents = slices.DeleteFunc(c.withEvents, same)
	o.disconnect()
	o.deferred, o.deferrals, o.leaving, o.inHand = nil, 0, false, 0
	repeats, o.lapsed = o.lapsed, 0
	o.lend()
	o.freeLater, o.counting = nil, nil
	return repeats
}

// lend notes that the Client which has had the stream may still write from its chunks: their memory is not used again.
func (o *Outbound) lend() {
	for _, c := range o.chunks {
		c.lent = true
	}
}

// Adopt makes a stream that another Client has detached one of this Client's.
func (c *Client) Adopt(o *Outbound) {
	c.lastHandle++
	o.handle = c.lastHandle
	if o.counting = &c.counting; o.fetched == nil {
		o.freeLater = &c.freeLater
	}
	o.setPresence(c.presence)
	c.register(o)
	c.noteEvents(o)
	c.schedule(o)
}

// tickLeaving has the receiver answer at once when its consumers have had MoveAfter: also where the stream is to stay
// after all, which sends nothing before the answer.
func (c *Client) tickLeaving(o *Outbound, now time.Time) {
	if o.revoking && !o.atOnce && now.Sub(o.since) >= c.cfg.MoveAfter {
		o.atOnce = true
		c.sendRevoke(o.handle, o.revocation(o.tenure+1), true)
	}
}
