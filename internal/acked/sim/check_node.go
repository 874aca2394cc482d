package sim

import (
	"errors"

	"github.com/buffstreams/watermill-buffstreams/internal/session"
	"github.com/buffstreams/watermill-buffstreams/internal/wire"
)

// fate is what has to become of an Open.
type fate int

const (
	opens fate = iota
	fenced
	refusedForNow
)

// heardBy follows what the node has handled without an error.
func (c *conn) heardBy(frame any) {
	w := c.w
	c.heard = w.now
	switch f := frame.(type) {
	case *wire.Open:
		c.life.open(c, f)
	case *session.PublishFrame:
		c.took(f)
	case *wire.Want:
		in := c.ins[f.Handle]
		if in == nil || in.conn != c {
			return
		}
		if f.SeenMessages != in.granted.messages {
			w.seen["wants that a grant crossed"]++
			return
		}
		in.spend(in.outstanding())
		in.granted = in.got
	case *wire.Release:
		if in := c.ins[f.Handle]; in != nil && in.conn == c {
			in.detach()
			delete(c.ins, f.Handle)
			delete(c.life.flows, in.flow)
			c.life.unbind(in.flow.id.Publisher)
		}
	}
}

// took follows a Publish that the node has accepted.
func (c *conn) took(f *session.PublishFrame) {
	w, in := c.w, c.ins[f.Handle]
	if in == nil || in.conn != c {
		w.fail(ruleEpoch, "conn %d: a publish was taken for a stream that is not open there", c.id)
		return
	}
	count := uint64(len(f.Messages))
	in.got.messages += count
	in.got.bytes += uint64(f.Bytes)
	in.spend(amount{count, uint64(f.Bytes)})
	if in.outstanding().messages > in.granted.messages || in.outstanding().bytes > in.granted.bytes {
		w.fail(ruleCredit, "flow %d: the node took more than it granted", in.flow.n)
		return
	}
	if dup := min(f.First+count, in.next); dup > f.First {
		w.seen["duplicates dropped"] += int(dup - f.First)
	}
	for seq := in.next; seq < f.First; seq++ {
		if !in.flow.told.Has(seq) {
			w.fail(ruleMark, "flow %d: the node took %d, which skips %d", in.flow.n, f.First, seq)
			return
		}
	}
	for seq := max(f.First, in.next); seq < f.First+count; seq++ {
		w.receive(in, in.flow.message(seq))
	}
	in.next = max(in.next, f.First+count)
}

// said checks a frame that the node has written.
func (c *conn) said(frame any) {
	w := c.w
	switch f := frame.(type) {
	case *wire.Opened:
		c.saidOpened(f)
	case *session.AckFrame:
		c.saidAck(f)
	case *wire.Reject:
		in := c.ins[f.Handle]
		if in == nil && c.past[f.Handle] { // it waited while the stream moved to another handle
			return
		}
		if in == nil || f.Sequence == 0 {
			w.fail(ruleProtocol, "conn %d: reject of handle %d, sequence %d", c.id, f.Handle, f.Sequence)
			return
		}
		if m := in.flow.message(f.Sequence); m == nil || !m.rejected {
			w.fail(ruleAcked, "flow %d: sequence %d was rejected by no group", in.flow.n, f.Sequence)
		}
		w.seen["rejects"]++
	case *wire.Failure:
		if c.from != nil && !c.claimed {
			w.fail(ruleProtocol, "conn %d: the node gives up on an honest peer: %s %s", c.id, f.Code, f.Reason)
		}
		w.seen["failures"]++
	case *wire.Goaway:
		w.seen["goaways"]++
	}
}

func (c *conn) saidOpened(f *wire.Opened) {
	w := c.w
	want := c.fates[f.Handle]
	switch {
	case want == opens && f.Code != 0:
		w.fail(ruleEpoch, "conn %d: handle %d was refused: %s %s", c.id, f.Handle, f.Code, f.Reason)
		return
	case want == fenced && f.Code != wire.Code_CODE_FENCED:
		w.fail(ruleEpoch, "conn %d: handle %d of an older epoch or a stranger was answered with %s", c.id, f.Handle, f.Code)
		return
	case f.Code != 0:
		w.seen["opens refused: "+f.Code.String()]++
		return
	}
	in := c.ins[f.Handle]
	if in == nil {
		return // it has moved on meanwhile
	}
	if f.Next > in.next {
		w.fail(ruleMark, "flow %d: opened at %d, received below %d", in.flow.n, f.Next, in.next)
		return
	}
	c.checkSettled(in, f.Settled)
	w.seen["streams opened"]++
}

func (c *conn) saidAck(f *session.AckFrame) {
	w, in := c.w, c.ins[f.Handle]
	if in == nil || in.conn != c {
		w.fail(ruleEpoch, "conn %d: ack of handle %d, which is not open there", c.id, f.Handle)
		return
	}
	if f.Next > in.next {
		w.fail(ruleMark, "flow %d: acked below %d, received below %d", in.flow.n, f.Next, in.next)
		return
	}
	c.checkSettled(in, f.Settled)
	if f.Messages == 0 {
		return
	}
	before := in.outstanding()
	in.granted = amount{f.Messages, f.Bytes}
	after := in.outstanding()
	in.rt.credit.messages += after.messages - before.messages
	in.rt.credit.bytes += after.bytes - before.bytes
	c.life.checkRoom(in.rt)
}

// checkSettled holds what the node calls settled against what was handled and what is durable.
func (c *conn) checkSettled(in *inflow, pairs []uint64) {
	w := c.w
	for i := 0; i+1 < len(pairs); i += 2 {
		for seq := pairs[i]; seq <= pairs[i+1]; seq++ {
			if in.flow.told.Has(seq) {
				continue
			}
			m := in.flow.message(seq)
			if m == nil || !m.acked {
				w.fail(ruleAcked, "flow %d: the node calls %d handled, and not all groups acked it", in.flow.n, seq)
				return
			}
			if s := c.life.recv.store; s != nil && !s.has(in.flow.id, seq) {
				w.fail(ruleMark, "flow %d: the node calls %d handled before that is durable", in.flow.n, seq)
				return
			}
		}
	}
}

// checkRoom holds what a topic has, and has granted, against its configuration.
func (l *life) checkRoom(rt *rtopic) {
	size, bytes := l.recv.cfg.Window, uint64(0)
	for _, other := range l.order {
		bytes += other.held.bytes + other.credit.bytes
	}
	have := amount{rt.held.messages + rt.credit.messages, rt.held.bytes + rt.credit.bytes}
	switch {
	case have.messages > uint64(size.Messages) || have.bytes > uint64(size.Bytes):
		l.recv.w.fail(ruleCredit, "topic %s holds and granted %+v in a window of %+v", rt.name, have, size)
	case bytes > uint64(l.recv.cfg.Memory):
		l.recv.w.fail(ruleCredit, "the node holds and granted %d bytes of %d", bytes, l.recv.cfg.Memory)
	}
}

// judge looks at why the node ends a connection.
func (c *conn) judge(err error) {
	w := c.w
	var broken *session.ProtocolError
	var refused *session.PeerError
	switch {
	case errors.As(err, &broken):
		if c.from != nil && !c.claimed {
			w.fail(ruleProtocol, "conn %d: %v", c.id, broken)
		}
		w.seen["connections ended by the node"]++
	case errors.As(err, &refused):
		w.fail(ruleProtocol, "conn %d: %v", c.id, refused)
	}
}
