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
	since    time.Time // when that began; zero: at the next Tick
	revoking bool      // Revoke was sent on this connection
	asked    bool      // it was sent in this tenure: the receiver may have void what it had
	atOnce   bool      // and a second one, that does not wait for consumers
	inHand   uint64    // messages that consumers still have, as the receiver says
}

// leftTenure is a stream that has moved without an answer of the receiver, which may give its messages to consumers still.
type leftTenure struct {
	id     Identity
	stream uint64
	topic  string
	tenure uint64 // the one that goes on elsewhere
	handle uint64 // of the Revoke on this connection; 0: none was sent
}

// peerMoves is what a Client knows of its receiver that matters to moves.
type peerMoves struct {
	met      bool     // it has sent a Welcome
	able     bool     // it has listed the feature in its last Welcome
	instance [16]byte // of its last Welcome
	gone     bool     // the connection is lost, and a dial was refused
	quiet    time.Duration
	probed   bool // a Ping was sent because it is quiet
	silent   bool // it has been quiet for MoveAfter, with something unsettled
	heard    bool // since the last Tick
	lastTick time.Time
	left     []*leftTenure
	changed  bool // see TookMoves
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

// Ended tells whether the stream's own side has ended it, as it was idle.
func (o *Outbound) Ended() bool { return o.cause == ErrEnded } //nolint:errorlint // set by this package, never wrapped

// features is what the Client lists in its Hello.
func (c *Client) features() []string {
	if c.cfg.MoveAfter <= 0 {
		return nil
	}
	return []string{FeatureMove}
}

// tenureOf is what an Open says of the stream's tenure.
func (c *Client) tenureOf(o *Outbound) uint64 {
	if !c.moves() {
		return 0
	}
	return o.tenure
}

// Tenure counts the places that the stream has had.
func (o *Outbound) Tenure() uint64 { return o.tenure }

// NextTenure is the tenure that Detach would begin now.
func (o *Outbound) NextTenure() uint64 {
	if o.openSent {
		return o.tenure + 1
	}
	return o.tenure
}

// Leaving tells whether the stream is being taken back from its receiver, or has come back. It ends without a call of Stay
// when a receiver is met that does not know how.
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

// moves tells whether both sides know moves of what was sent. Of a peer that has not been met yet, an earlier process may
// have known it: it is taken for one that does.
func (c *Client) moves() bool { return c.cfg.MoveAfter > 0 && (c.peer.able || !c.peer.met) }

// Leave begins to take a stream back from the receiver. MayMove tells when it has come back. Leave returns false, and the
// stream goes on, if the receiver does not know how; that can be found out later, too: see Leaving.
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

// resume begins a new tenure at the same receiver if that may have taken the stream for revoked, and its answer was lost.
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
	if !o.leaving {
		c.schedule(o)
	}
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

// lapse ends a tenure. What was sent in it and is not settled can come twice, but for what the receiver has returned and
// what is not below next, the lowest sequence that it has not received; 0: it does not say. Neither was given to a
// consumer.
func (o *Outbound) lapse(returned []uint64, next uint64) {
	end := o.sentTo
	if next > 0 {
		end = min(end, next)
	}
	var given Watermark
	for i := 0; i < len(returned); i += 2 {
		given.Add(returned[i], returned[i+1])
	}
	o.tenure++
	o.openSent, o.asked, o.sentTo, o.received = false, false, 0, o.settled.Next()
	for seq := o.settled.Next(); seq < end; {
		first, last := o.settled.Hole(seq)
		if first >= end {
			break
		}
		last = min(last, end-1)
		for at := first; at <= last; {
			lo, hi := given.Hole(at)
			if lo > last {
				break
			}
			hi = min(hi, last)
			o.lapsed += int(hi - lo + 1)
			o.repeats(lo, hi)
			at = hi + 1
		}
		seq = last + 1
	}
}

// repeats notes that messages can come twice.
func (o *Outbound) repeats(first, last uint64) {
	if o.again == nil {
		o.again = &Watermark{}
	}
	o.again.Add(first, last)
}

// sameKind is how many messages from seq on, up to count, can come twice or cannot, as the first of them. again tells
// which.
func (o *Outbound) sameKind(seq, count uint64) (n uint64, again bool) {
	if o.settled.Next() >= o.again.End() {
		o.again = nil
		return count, false
	}
	first, last := o.again.Hole(seq)
	if first > seq {
		return min(count, first-seq), true
	}
	return min(count, last-seq+1), false
}

// Repeats is the number of messages that are not settled and can come twice.
func (o *Outbound) Repeats() (n int) {
	if o.again == nil {
		return 0
	}
	for seq := o.settled.Next(); seq < o.again.End(); {
		first, last := o.settled.Hole(seq)
		for at := first; at <= min(last, o.again.End()-1); at++ {
			if o.again.Has(at) {
				n++
			}
		}
		if last == ^uint64(0) {
			break
		}
		seq = last + 1
	}
	return n
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

// LeftBehind has the receiver void the tenures below one of a stream that is elsewhere: an earlier process of this side may have
// left it here without an answer.
func (c *Client) LeftBehind(id Identity, stream uint64, topic string, tenure uint64) {
	l := &leftTenure{id: id, stream: stream, topic: topic, tenure: tenure}
	c.peer.left = append(c.peer.left, l)
	if c.phase >= established && c.peer.able {
		c.revokeLeft(l)
	}
}

// revokeLeft tells the receiver of a stream that has left it. It is not on the connection.
func (c *Client) revokeLeft(l *leftTenure) {
	c.lastHandle++
	l.handle = c.lastHandle
	c.sendRevoke(l.handle, l, true)
}

// Refuse notes that a dial was refused while there is no connection: the receiver is gone.
func (c *Client) Refuse() { c.peer.gone = c.phase == disconnected }

// Gone tells whether the receiver is known to be gone, Silent whether it is silent: see the package's move.go.
func (c *Client) Gone() bool { return c.peer.gone }

// Silent tells whether nothing was heard for MoveAfter, though something is unsettled and a Ping was sent.
func (c *Client) Silent() bool { return c.peer.silent }

// Left tells whether the receiver has to be told of streams that have moved without its answer.
func (c *Client) Left() bool { return len(c.peer.left) > 0 }

// welcomeMoves takes what a Welcome says of moves. A new instance of the receiver has nothing of what was sent.
func (c *Client) welcomeMoves(f *wire.Welcome) {
	able, instance := slices.Contains(f.Features, FeatureMove), [16]byte{}
	if len(f.Instance) == len(instance) {
		instance = [16]byte(f.Instance)
	}
	another := c.peer.instance != [16]byte{} && c.peer.instance != instance
	c.peer.met, c.peer.able, c.peer.instance, c.peer.gone = true, able, instance, false
	if another {
		c.peer.left, c.groups = nil, nil
	}
	for _, o := range c.inOrder() {
		switch {
		case another && o.sentTo > 0 && o.cause == nil:
			o.lapse(nil, 0)
			c.peer.changed = true
		case o.leaving && able:
			c.revoke(o)
		case o.leaving && !c.MayMove(o):
			o.leaving = false
			c.peer.changed = true
		}
	}
	if !c.moves() {
		return
	}
	for _, l := range c.peer.left {
		c.revokeLeft(l)
	}
}

// disconnectMoves follows the end of a connection.
func (c *Client) disconnectMoves() {
	for _, l := range c.peer.left {
		l.handle = 0
	}
	for _, o := range c.handles {
		if !o.leaving && o.cause == nil {
			o.resume()
		}
	}
}

// settleLeft takes the answer of a receiver that was told of a stream which has moved.
func (c *Client) settleLeft(f *wire.Returned) bool {
	i := slices.IndexFunc(c.peer.left, func(l *leftTenure) bool { return l.handle == f.Handle })
	if i < 0 {
		return false
	}
	if f.InHand == 0 || f.Next == 0 {
		c.peer.left = slices.Delete(c.peer.left, i, i+1)
	}
	return true
}

// tickMoves watches for a receiver that is silent while something that it was sent is unsettled.
func (c *Client) tickMoves(now time.Time) {
	p := &c.peer
	passed := max(0, min(now.Sub(p.lastTick), c.cfg.MoveAfter/5)) // this side may have been stopped itself
	p.lastTick = now
	if p.heard || !c.moves() || !slices.ContainsFunc(c.order, (*Outbound).awaitsPeer) {
		p.heard, p.quiet, p.probed, p.silent = false, 0, false, false
		return
	}
	p.quiet += passed
	if c.phase >= established && !p.probed && p.quiet >= c.cfg.MoveAfter/3 {
		p.probed = true
		c.sendControl(&wire.Frame{Body: &wire.Frame_Ping{Ping: &wire.Ping{}}})
	}
	p.silent = p.quiet >= c.cfg.MoveAfter && (p.probed || c.phase < established)
}

// awaitsPeer tells whether the receiver has something of the stream that is not settled.
func (o *Outbound) awaitsPeer() bool { return o.sentTo > 0 && o.unsettled() > 0 }

// tickLeaving has the receiver answer at once when its consumers have had MoveAfter: also where the stream is to stay
// after all, which sends nothing before the answer.
func (c *Client) tickLeaving(o *Outbound, now time.Time) {
	if o.since.IsZero() {
		o.since = now
	}
	if o.revoking && !o.atOnce && now.Sub(o.since) >= c.cfg.MoveAfter {
		o.atOnce = true
		c.sendRevoke(o.handle, o.revocation(o.tenure+1), true)
	}
}

// EndStream ends a stream of StartStream of which everything is settled.
func (c *Client) EndStream(o *Outbound) {
	if o.state == open && c.phase >= established {
		c.forget(o)
		return
	}
	c.remove(o)
	o.fail(ErrEnded)
}

// Head is the lowest sequence that is not settled.
func (o *Outbound) Head() uint64 { return o.settled.Next() }

// HasRoom tells whether a small message would be sent without waiting for room or credit.
func (o *Outbound) HasRoom() bool {
	return o.cause == nil && len(o.line) == 0 && o.pending < o.window.Messages && o.bytes < o.window.Bytes &&
		!(o.state == open && o.wantSent && o.hasUnsent())
}

// TookMoves tells whether something has happened since the last call that lets streams move.
func (c *Client) TookMoves() bool {
	changed := c.peer.changed
	c.peer.changed = false
	return changed
}
