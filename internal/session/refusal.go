package session

import "github.com/buffstreams/watermill-buffstreams/internal/wire"

// Refused is a message that the receiver settled without handling it.
type Refused struct {
	Topic    string
	Sequence uint64
	Message  []byte // as it was encoded; the receiver of this value owns it
	Err      *PeerError
}

// Refused returns the messages that were refused since the last call. Those of fetched streams are in their Events.
func (c *Client) Refused() []Refused {
	out := c.refused
	c.refused = nil
	return out
}

// refuse settles a message that will not be handled. The waiters for it finish with err when their other messages have
// come far enough.
func (c *Client) refuse(o *Outbound, seq uint64, err *PeerError) {
	for _, waiting := range [...][]*Waiter{o.waitReceived, o.waitHandled} {
		for _, w := range waiting {
			if w.First <= seq && seq <= w.Last {
				w.Err = err
			}
		}
	}
	if o.fetched != nil {
		o.settled.Add(seq, seq)
		o.fetched.events = append(o.fetched.events, Event{First: seq, Last: seq, Err: err})
		c.noteEvents(o)
		return
	}
	message := append([]byte(nil), o.chunks[o.chunkOf(seq)].message(seq)...)
	c.refused = append(c.refused, Refused{Topic: o.Topic, Sequence: seq, Message: message, Err: err})
	o.settle(seq, seq)
}

// refuseTooLarge refuses a message that the peer would not take.
func (c *Client) refuseTooLarge(o *Outbound, seq uint64) {
	c.refuse(o, seq, NewPeerError(wire.Code_CODE_LIMIT, "message larger than the peer's limit"))
	o.finishReached()
}

// failStream breaks a stream for good, removes it and refuses every message that it keeps. The next message to its
// topic begins a new stream.
func (c *Client) failStream(o *Outbound, err *PeerError) {
	delete(c.handles, o.handle)
	if o.fetched != nil {
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
	delete(c.streams, o.Topic)
}
