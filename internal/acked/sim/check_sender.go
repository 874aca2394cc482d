package sim

import (
	"github.com/buffstreams/watermill-buffstreams/internal/session"
	"github.com/buffstreams/watermill-buffstreams/internal/wire"
)

// wrote checks a frame that a sender has written.
func (c *conn) wrote(frame any) {
	w := c.w
	switch f := frame.(type) {
	case *wire.Open:
		c.wroteOpen(f)
	case *session.PublishFrame:
		c.wrotePublish(f)
	case *wire.Want:
		o := c.opens[f.Handle]
		if o == nil || !o.open {
			w.fail(ruleProtocol, "conn %d: want of handle %d, which is not open", c.id, f.Handle)
			return
		}
		if f.SeenMessages == o.limit.messages { // else a grant came between its making and its writing: it is void
			o.limit = o.used
		}
	case *wire.Release:
		o := c.opens[f.Handle]
		if o == nil || o.head.known.Next() < o.head.next {
			w.fail(ruleProtocol, "conn %d: release of handle %d with messages that are not settled", c.id, f.Handle)
			return
		}
		o.head.released = true
		w.seen["streams released"]++
	case *wire.Ping:
		w.seen["pings"]++
	}
}

func (c *conn) wroteOpen(f *wire.Open) {
	w := c.w
	h := c.from.proc.headOf(c.life.recv, StreamID{[16]byte(f.Publisher), f.Stream, f.Topic})
	if h == nil {
		w.fail(ruleProtocol, "conn %d: open of a stream %d that the process does not have", c.id, f.Stream)
		return
	}
	if f.Base > h.known.Next() {
		w.fail(ruleAcked, "flow %d: opened with base %d, settled below %d", h.flow.n, f.Base, h.known.Next())
	}
	c.opens[f.Handle] = &outgoing{head: h}
}

func (c *conn) wrotePublish(f *session.PublishFrame) {
	w, o := c.w, c.opens[f.Handle]
	if o == nil || !o.open {
		w.fail(ruleProtocol, "conn %d: publish on handle %d, which is not open", c.id, f.Handle)
		return
	}
	fl, count := o.head.flow, uint64(len(f.Messages))
	o.used.messages += count
	o.used.bytes += uint64(f.Bytes)
	if o.used.messages > o.limit.messages || o.used.bytes > o.limit.bytes {
		w.fail(ruleCredit, "flow %d: sent %+v with credit for %+v", fl.n, o.used, o.limit)
		return
	}
	if f.First != o.next && (f.First < o.next || !f.Gap || !o.head.known.Covers(o.next, f.First-1)) {
		w.fail(ruleOrder, "flow %d: sent %d (gap %v), next was %d", fl.n, f.First, f.Gap, o.next)
		return
	}
	for i, b := range f.Messages {
		seq := f.First + uint64(i)
		m := fl.message(seq)
		switch {
		case m == nil || !m.is(b):
			w.fail(ruleContent, "flow %d: sequence %d was sent with another message", fl.n, seq)
			return
		case o.head.known.Has(seq):
			w.fail(ruleOrder, "flow %d: sequence %d was sent again though it is settled", fl.n, seq)
			return
		case fl.box != nil && seq >= fl.box.durable:
			w.fail(rulePublish, "flow %d: sequence %d left the outbox before it was synced", fl.n, seq)
			return
		}
	}
	o.next = f.First + count
	w.seen["publish frames"]++
}
