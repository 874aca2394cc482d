package session

import (
	"errors"
	"fmt"
	"time"

	"github.com/buffstreams/watermill-buffstreams/internal/wire"
)

// maxWhy bounds what is repeated of a receiver's explanation, in bytes.
const maxWhy = 300

const (
	// askEvery is the time between two questions why a stream gets no credit.
	askEvery = time.Second
	// maxAsks bounds these questions in one Tick, over all streams: a receiver ends a connection with too many pings.
	maxAsks = 16
)

// tickAsk asks the receiver why it gives a stream no credit, if a caller waits for the stream.
func (c *Client) tickAsk(o *Outbound, now time.Time) {
	if c.asks >= maxAsks || c.phase != established || o.state != open || !o.wantSent || !o.hasWaiters() ||
		now.Sub(o.askedAt) < askEvery {
		return
	}
	c.asks++
	o.askedAt = now
	c.sendControl(&wire.Frame{Body: &wire.Frame_Ping{Ping: &wire.Ping{Handle: o.handle}}})
}

// explained notes why the receiver gives a stream no credit.
func (c *Client) explained(f *wire.Pong) {
	if o := c.handles[f.Handle]; o != nil && o.wantSent {
		o.why = f.Why
	}
}

// Explain says what a stream waits for, while there is a connection: first for room, then to be sent, then for acks.
func (c *Client) Explain(o *Outbound) error {
	switch budget, absent := o.account.Waits(); {
	case len(o.line.turns) > 0 && budget && absent:
		return errors.New("messages to peers that are away have taken their half of AckedConfig.MemoryLimit")
	case len(o.line.turns) > 0 && budget:
		return errors.New("messages to other topics have taken AckedConfig.MemoryLimit")
	case c.phase == greeting:
		return errors.New("the peer has not answered the greeting")
	case c.phase == draining:
		return errors.New("the peer closes its listener")
	case c.phase == disconnected || o.state == broken:
		return errors.New("the connection is lost")
	case o.deferred != nil:
		return o.deferred
	case o.state != open:
		return errors.New("the peer has not said yet whether it takes the topic")
	}
	return o.explainProgress()
}

// explainProgress says what an open stream waits for.
func (o *Outbound) explainProgress() error {
	full := ""
	if len(o.line.turns) > 0 {
		full = fmt.Sprintf("the window is full, with %d messages that are not handled; ", o.pending)
	}
	messages, bytes := o.credit.available()
	switch {
	case o.hasUnsent() && (o.wantSent || messages == 0 || bytes == 0) && o.why != "":
		return fmt.Errorf("%sthe peer gives no credit for the topic: %.*q", full, maxWhy, o.why)
	case o.hasUnsent() && (o.wantSent || messages == 0 || bytes == 0):
		return fmt.Errorf("%sthe peer gives no credit for the topic: nobody has subscribed to it there, or its window is full", full)
	case o.hasUnsent():
		return fmt.Errorf("%smessages are on their way to the socket", full)
	case o.received < o.next:
		return fmt.Errorf("%sthe peer has not acknowledged what was sent", full)
	}
	return fmt.Errorf("%sthe peer has received everything, and not every consumer group has handled it", full)
}
