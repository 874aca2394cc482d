package session

import (
	"slices"
	"time"

	"github.com/buffstreams/watermill-buffstreams/internal/wire"
)

// peerMoves is what a Client knows of its receiver that matters to moves.
type peerMoves struct {
	met      bool     // it has sent a Welcome
	able     bool     // it has listed the feature in its last Welcome
	instance [16]byte // of its last Welcome
	gone     bool     // the connection is lost, and a dial was refused
	quiet    time.Duration
	probed   bool // a Ping was sent because it is quiet
	silent   bool // it has been quiet for MoveAfter, with something unsettled, and was not heard since
	heard    bool // since the last Tick
	lastTick time.Time
	left     []*leftTenure
	changed  bool // see TookMoves
}

// leftTenure is a stream that has moved without an answer of the receiver, which may give its messages to consumers
// still.
type leftTenure struct {
	id     Identity
	stream uint64
	topic  string
	tenure uint64 // the one that goes on elsewhere
	handle uint64 // of the Revoke on this connection; 0: none was sent
}

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
	if !c.moves() { // it cannot be told
		c.peer.left = nil
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

// Refuse notes that a dial was refused while there is no connection: the receiver is gone.
func (c *Client) Refuse() {
	if c.phase == disconnected {
		c.peer.gone, c.peer.silent = true, false
	}
}

// Gone tells whether the receiver is known to be gone.
func (c *Client) Gone() bool { return c.peer.gone }

// Silent tells whether nothing was heard for MoveAfter, though something was unsettled and a Ping was sent. It is so
// until the receiver is heard.
func (c *Client) Silent() bool { return c.peer.silent }

// hear notes that the receiver has said something. It is not silent from that moment: what is sent from here on comes
// back with its answer, and not without.
func (p *peerMoves) hear() { p.heard, p.silent = true, false }

// tickMoves watches for a receiver that is silent while something that it was sent is unsettled.
func (c *Client) tickMoves(now time.Time) {
	p := &c.peer
	passed := max(0, min(now.Sub(p.lastTick), c.cfg.MoveAfter/5)) // this side may have been stopped itself
	p.lastTick = now
	// It is silent until it is heard, also when all has moved away: what is sent to it next would only be the next to
	// wait.
	if p.heard || !c.moves() || !p.silent && !slices.ContainsFunc(c.order, c.awaitsPeer) {
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

// awaitsPeer tells whether an answer of the receiver is due to a stream: it has something that is not settled, or is
// asked for credit.
func (c *Client) awaitsPeer(o *Outbound) bool {
	return o.unsettled() > 0 && (o.sentTo > 0 || c.phase >= established)
}

// TookMoves tells whether something has happened since the last call that lets streams move.
func (c *Client) TookMoves() bool {
	changed := c.peer.changed
	c.peer.changed = false
	return changed
}

// Left tells whether the receiver has to be told of streams that have moved without its answer.
func (c *Client) Left() bool { return len(c.peer.left) > 0 }

// LeftBehind has the receiver void the tenures below one of a stream that is elsewhere: an earlier process of this side
// may have left it here without an answer.
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

// settleLeft takes the answer of a receiver that was told of a stream which has moved. It gives nothing more to
// consumers; what they have is of no interest.
func (c *Client) settleLeft(f *wire.Returned) bool {
	i := slices.IndexFunc(c.peer.left, func(l *leftTenure) bool { return l.handle == f.Handle })
	if i < 0 {
		return false
	}
	c.peer.left = slices.Delete(c.peer.left, i, i+1)
	return true
}
