package session

import (
	"time"

	"github.com/buffstreams/watermill-buffstreams/internal/wire"
)

// Refused is a message that the receiver settled without handling it.
type Refused struct {
	Topic    string
	Sequence uint64
	Message  []byte // as it was encoded; the receiver of this value owns it
	Err      *PeerError
	// Ephemeral tells that the message was in an ephemeral stream.
	Ephemeral bool
}

// Refused returns the messages that were refused since the last call. Those of fetched streams are in their Events.
func (c *Client) Refused() []Refused {
	out := c.refused
	c.refused = nil
	return out
}

// Untold tells whether Refused or WithEvents have something to return.
func (c *Client) Untold() bool { return len(c.refused) > 0 || len(c.withEvents) > 0 }

// refuse settles a message that will not be handled. The waiters for it finish with err when their other messages have
// come far enough.
func (c *Client) refuse(o *Outbound, seq uint64, err *PeerError) {
	for _, waiting := range [...][]*Waiter{o.waitReceived, o.waitHandled} {
		for _, w := range waiting {
			w.refuse(seq, err)
		}
	}
	c.counting.Refused++
	if o.fetched != nil {
		o.noteSettled(seq, o.settled.Add(seq, seq), 0)
		o.fetched.events = append(o.fetched.events, Event{First: seq, Last: seq, Err: err})
		c.noteEvents(o)
		return
	}
	message := append([]byte(nil), o.chunks[o.chunkOf(seq)].message(seq)...)
	c.refused = append(c.refused, Refused{
		Topic: o.Topic, Sequence: seq, Message: message, Err: err, Ephemeral: o.ephemeral,
	})
	o.settle(seq, seq)
}

// refuseTooLarge refuses the messages that the peer would not take, wherever they stand: they need no credit, and those
// before them may get none for long. A fetched stream stops at one until the message's owner has dealt with it: to pass
// over it tells the receiver that it is settled. refuseTooLarge tells whether the stream stands at such a message.
func (c *Client) refuseTooLarge(o *Outbound) (stands bool) {
	for {
		seq, found := o.oversized(c.peerMaxEntry)
		if !found {
			break
		}
		err := NewPeerError(wire.Code_CODE_LIMIT, "message larger than the peer's limit")
		if o.fetched == nil {
			c.refuse(o, seq, err)
			o.finishReached()
			continue
		}
		if _, told := o.fetched.tooLarge[seq]; !told {
			o.fetched.tooLarge[seq] = struct{}{}
			o.fetched.events = append(o.fetched.events, Event{First: seq, Last: seq, Err: err})
			c.noteEvents(o)
		}
	}
	if o.fetched == nil || len(o.fetched.tooLarge) == 0 || !o.nextIsOversized(c.peerMaxEntry) {
		return false
	}
	if messages, bytes := o.credit.available(); messages+bytes > 0 { // other streams of the topic can use it
		c.sendWant(o, 0, 0, 0)
	}
	return true
}

// failStream breaks a stream for good, removes it and refuses every message that it keeps. The next message to its
// topic begins a new stream.
func (c *Client) failStream(o *Outbound, err *PeerError) {
	if o.fetched != nil {
		c.remove(o)
		o.fetched.events = append(o.fetched.events, Event{Err: err})
		c.noteEvents(o)
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
	c.remove(o)
}

// The waits before a stream that the receiver refused for a while is opened again: they double.
const (
	firstDeferral = time.Second
	lastDeferral  = 30 * time.Second
)

// deferOpen notes that the receiver does not take the stream for now.
func (o *Outbound) deferOpen(err *PeerError, now time.Time) {
	o.state, o.deferred = unopened, err
	o.openAfter = now.Add(min(lastDeferral, firstDeferral<<min(o.deferrals, 10)))
	o.deferrals++
}
