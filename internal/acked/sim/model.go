package sim

import (
	"encoding/binary"

	"github.com/buffstreams/watermill-buffstreams/internal/flow"
	"github.com/buffstreams/watermill-buffstreams/internal/session"
)

// The rules that a run can break: the invariants of docs/design.md by their numbers, and two that hold of any run.
const (
	rulePublish  = "invariant 1, what Publish confirms"
	ruleAcked    = "invariant 2, acked means handled"
	ruleMark     = "invariant 3, the watermark moves with what is safe"
	ruleOrder    = "invariant 4, in order and once"
	ruleCredit   = "invariant 5, credit and memory"
	ruleEpoch    = "invariant 6, epochs and identities"
	ruleDrains   = "invariant 8, everything drains"
	ruleFair     = "invariant 9, a stuck topic delays no other"
	ruleProtocol = "protocol, an honest peer is never at fault"
	ruleContent  = "content, a sequence names one message"
)

const maxGroups = 8 // of a topic in one life

// message is one message and all that is true of it.
type message struct {
	id    uint64
	flow  *stream
	seq   uint64
	size  int
	key   int
	toxic bool // cannot be decoded

	reached  bool // some life had it
	acked    bool // in some life every group acked it
	rejected bool // in some life every group was done with it, and one had refused it
	reports  int  // of its rejection, to the sender

	// In the life that has it:
	life                    *life
	required, done, refused uint8 // groups
	at                      [maxGroups]gstate
}

// gstate is where a message stands in a group.
type gstate struct {
	taken   bool // by a member
	emitted bool
	handled bool
}

func (m *message) safe() bool { return m.acked || m.rejected }

func (m *message) room() flow.Amount {
	return flow.Amount{Messages: 1, Bytes: session.EncodedSize(m.size)}
}

// body is the message's bytes.
func (m *message) body(dst []byte) []byte {
	dst = binary.LittleEndian.AppendUint64(dst, m.id)
	for i := 8; i < m.size; i++ {
		dst = append(dst, byte(m.id))
	}
	return dst
}

// is tells whether b is the message's bytes.
func (m *message) is(b []byte) bool {
	return len(b) == m.size && binary.LittleEndian.Uint64(b) == m.id && (m.size == 8 || b[m.size-1] == byte(m.id))
}

// flow is a stream as the model knows it.
type stream struct {
	n      int
	id     StreamID
	secret [16]byte
	to     *receiver
	msgs   []*message // by sequence, from 1
	told   session.Watermark
	box    *boxStream // nil: its sender keeps it in memory
	dead   bool       // so that what was not received is lost with it
}

func (f *stream) message(seq uint64) *message {
	if seq == 0 || seq > uint64(len(f.msgs)) {
		return nil
	}
	return f.msgs[seq-1]
}

// add gives a message the flow's next sequence.
func (f *stream) add(m *message) {
	f.msgs = append(f.msgs, m)
	m.flow, m.seq = f, uint64(len(f.msgs))
}

// outgoing is a flow on one connection, as its sender must see it.
type outgoing struct {
	head        *head
	open        bool
	next        uint64 // sequence to send
	limit, used amount
}

type amount struct{ messages, bytes uint64 }

// head is what one process knows of a flow: a process and its predecessor that still runs know different things.
type head struct {
	flow     *stream
	proc     *process
	out      *session.Outbound
	known    session.Watermark // what it has learnt to be settled
	next     uint64            // behind what it enqueued
	settled  int               // known, of those enqueued here
	released bool
}

// tell notes what a sender has learnt to be settled.
func (w *world) tell(h *head, first, last uint64, rejected bool) {
	for seq := first; seq <= last; seq++ {
		m := h.flow.message(seq)
		if m == nil {
			w.fail(ruleAcked, "flow %d: sequence %d is settled, and there is none", h.flow.n, seq)
			return
		}
		if !rejected && !m.acked && !h.flow.told.Has(seq) {
			w.fail(ruleAcked, "flow %d: sequence %d counts as handled at its sender, and not all groups acked it", h.flow.n, seq)
			return
		}
	}
	h.settled += int(h.known.Add(first, last))
	h.flow.told.Add(first, last)
}

// inflow is a flow in one life of its receiver.
type inflow struct {
	knew         map[string]session.Watermark // what groups had settled in an earlier life
	flow         *stream
	rt           *rtopic
	conn         *conn
	epoch        uint64
	next         uint64
	granted, got amount
}

func (in *inflow) outstanding() amount {
	return amount{in.granted.messages - in.got.messages, in.granted.bytes - in.got.bytes}
}

// letGo forgets a flow's connection and the credit on it.
func (in *inflow) detach() {
	in.conn = nil
	in.spend(in.outstanding())
	in.granted, in.got = amount{}, amount{}
}

// spend takes credit out of the topic's account.
func (in *inflow) spend(a amount) {
	in.rt.credit.messages -= a.messages
	in.rt.credit.bytes -= a.bytes
}

// receive puts a new message into the life's memory.
func (w *world) receive(in *inflow, m *message) {
	rt := in.rt
	l := rt.life
	m.reached = true
	if m.size > l.recv.cfg.MaxMessage { // rejected at once
		m.life, m.required, m.done, m.refused = l, 1, 1, 1
		m.rejected = true
		return
	}
	m.life, m.required, m.done, m.refused = l, rt.alive, 0, 0
	m.at = [maxGroups]gstate{}
	if m.required == 0 {
		w.fail(ruleProtocol, "topic %s took a message without a group", rt.name)
		return
	}
	rt.hold(m)
	for _, g := range rt.groups {
		w.skip(g, in, m)
	}
}

// skip follows a group that does not get a message, as an earlier life has made durable that the group had settled it.
func (w *world) skip(g *group, in *inflow, m *message) {
	known := in.knew[g.name]
	if st := &m.at[g.bit]; g.name == "" || m.required&(1<<g.bit) == 0 || st.handled || st.taken || !known.Has(m.seq) || m.seq < 1 {
		return
	}
	w.seen["messages that a group had settled before"]++
	w.finish(g, m, false)
}

// skipAll is skip for all that a group has waiting.
func (w *world) skipAll(g *group) {
	for _, in := range g.rt.life.flows {
		if in.rt != g.rt {
			continue
		}
		for _, m := range in.flow.msgs {
			if m != nil && m.life == g.rt.life {
				w.skip(g, in, m)
			}
		}
	}
}

func (rt *rtopic) hold(m *message) {
	a := m.room()
	rt.held.messages++
	rt.held.bytes += uint64(a.Bytes)
}

// finish notes that a group is done with a message.
func (w *world) finish(g *group, m *message, refused bool) {
	st := &m.at[g.bit]
	st.taken, st.handled = false, true
	m.done |= 1 << g.bit
	if refused {
		m.refused |= 1 << g.bit
	}
	w.complete(g.rt, m)
}

// complete looks whether all groups are done with a message.
func (w *world) complete(rt *rtopic, m *message) {
	if m.life != rt.life || m.required&^m.done != 0 {
		return
	}
	if m.refused != 0 {
		m.rejected = true
	} else {
		m.acked = true
	}
	rt.held.messages--
	rt.held.bytes -= uint64(m.room().Bytes)
	w.delivered++
}

// waive takes a message out of a group that is gone, and tells whether that was the last it waited for.
func (w *world) waive(g *group, m *message) {
	bit := uint8(1) << g.bit
	if m.life != g.rt.life || m.required&bit == 0 || m.done&bit != 0 {
		return
	}
	m.done |= bit
	w.complete(g.rt, m)
}
