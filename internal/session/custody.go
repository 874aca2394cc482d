package session

import "bytes"

// Undelivered is the number of messages of a stream that no receiver is known to hold now. That a receiver has received
// a message is true of the present one only: it counts no more when the connection is lost, when the receiver has said
// that it goes away, when it is asked to give the stream back, or when a new one does not have it. The messages of a
// fetched stream count too.
func (c *Client) Undelivered(o *Outbound) int {
	if c.holds(o) {
		return o.Unreceived()
	}
	return o.unsettled()
}

// Delivered tells whether a receiver is known to hold all messages of a stream up to a sequence that are not settled. A
// stream that has ended holds none.
func (c *Client) Delivered(o *Outbound, last uint64) bool {
	return o.cause != nil || c.holds(o) && o.firstUnreceived() > last || o.settledUpTo(last)
}

// Settled tells whether all messages of a stream up to a sequence are settled.
func (c *Client) Settled(o *Outbound, last uint64) bool { return o.cause != nil || o.settledUpTo(last) }

func (o *Outbound) settledUpTo(last uint64) bool {
	first, _ := o.settled.Hole(1)
	return first > last
}

// holds tells whether the receiver of a stream is there and keeps what it has received. One that was asked to give the
// stream back gives nothing of it to consumers any more.
func (c *Client) holds(o *Outbound) bool {
	return o.state == open && c.phase == established && !o.revoking
}

// Leftover is a message that no receiver is known to hold.
type Leftover struct {
	Topic   string
	Message []byte // encoded; a copy
}

// Leftovers returns the messages of all streams that are undelivered, in the order of each stream. Those of fetched
// streams are not among them: the store keeps them.
func (c *Client) Leftovers() (all []Leftover) {
	for _, o := range c.inOrder() {
		if o.fetched != nil {
			continue
		}
		from := uint64(1)
		if c.holds(o) {
			from = o.received
		}
		for first, last := range o.settled.Holes(from, o.next) {
			for seq := first; seq <= last; seq++ {
				message := bytes.Clone(o.chunks[o.chunkOf(seq)].message(seq))
				all = append(all, Leftover{Topic: o.Topic, Message: message})
			}
		}
	}
	return all
}

// AllDelivered tells whether no stream has undelivered messages.
func (c *Client) AllDelivered() bool {
	for _, o := range c.handles {
		if o.fetched == nil && c.Undelivered(o) > 0 {
			return false
		}
	}
	return true
}
