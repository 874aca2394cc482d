package sim

import (
	"encoding/binary"
	"slices"

	"github.com/buffstreams/watermill-buffstreams/internal/dispatch"
)

// take lets a member's lanes take messages, up to n.
func (w *world) take(s *seat, n int) {
	for ; n > 0 && len(s.flights) < s.plan.flights; n-- {
		if s.waits && !s.ready {
			return
		}
		if s.waits {
			s.waits, s.ready = false, false
		}
		d, _, ok := s.m.Take()
		if !ok { // a word that came meanwhile makes the lane look once more
			s.waits, s.ready = !s.ready, false
			continue
		}
		if d.Again() { // the model has it as handled, or as given up
			s.m.Settle(d)
			continue
		}
		m := w.inspect(s, d)
		if m == nil {
			return
		}
		if m.toxic {
			w.refuse(s, d, m, true)
			continue
		}
		if s.plan.keyed && !s.m.Claim(&d, keyNames[m.key]) {
			m.at[s.group.bit].taken = false
			continue
		}
		f := &flight{d: d, msg: m, offered: s.deaf}
		s.flights = append(s.flights, f)
		if w.claimed(s, m); !f.offered {
			w.emit(s, m)
		}
	}
}

var keyNames = [...]string{"a", "b", "c", "d"}

// inspect holds a delivery against the model.
func (w *world) inspect(s *seat, d dispatch.Delivery) *message {
	g, b := s.group, d.Message()
	var m *message
	if len(b) >= 8 {
		m = w.byID(binary.LittleEndian.Uint64(b))
	}
	_, seq := d.Origin()
	if m == nil || !m.is(b) || m.seq != seq {
		w.fail(ruleContent, "topic %s delivers sequence %d with other bytes", g.rt.name, seq)
		return nil
	}
	st := &m.at[g.bit]
	switch {
	case m.life != g.rt.life:
		w.fail(ruleOrder, "flow %d: sequence %d is delivered, and this life never got it", m.flow.n, seq)
	case st.taken:
		w.fail(ruleOrder, "flow %d: sequence %d is with two members of a group", m.flow.n, seq)
	case st.handled || m.done&(1<<g.bit) != 0 && !g.gone:
		w.fail(ruleOrder, "flow %d: sequence %d is delivered again though it was handled", m.flow.n, seq)
	}
	st.taken = true
	w.note("take", m.flow.n, int(seq), int(g.bit))
	return m
}

// claimed holds the order of first deliveries.
func (w *world) claimed(s *seat, m *message) {
	g := s.group
	k := orderKey{flow: m.flow}
	if s.plan.keyed {
		k.key = m.key
		if other := g.busy[m.key]; other != nil && other != m && other.life == m.life {
			w.fail(ruleOrder, "flow %d: sequence %d overtakes flow %d sequence %d of the same key",
				m.flow.n, m.seq, other.flow.n, other.seq)
		}
		g.busy[m.key] = m
	}
	if st := &m.at[g.bit]; !st.emitted {
		st.emitted = true
		if last := g.first[k]; m.seq <= last {
			w.fail(ruleOrder, "flow %d: sequence %d comes after %d", m.flow.n, m.seq, last)
		}
		g.first[k] = m.seq
	}
}

// emit notes that a handler got a message.
func (w *world) emit(s *seat, m *message) {
	if st := s.rt.life.recv.store; st != nil && st.has(m.flow.id, m.seq) && !m.flow.dead {
		w.fail(ruleOrder, "flow %d: sequence %d is delivered again though it was durable that it was handled", m.flow.n, m.seq)
	}
}

// act ends a flight, or takes it a step further.
func (w *world) act(s *seat, i int) {
	f := s.flights[i]
	switch d := w.dice; {
	case f.offered:
		if s.m.HasWaiters() && d.chance(700) {
			w.seen["offers passed on"]++
			w.removeFlight(s, i)
			s.m.Yield(f.d)
			s.waits = true
			w.returned(s, f.msg)
		} else if d.chance(300) || !w.faults {
			f.offered = false
			w.emit(s, f.msg)
		}
	case f.nacked:
		if s.m.HasWaiters() {
			w.giveBack(s, i)
			return
		}
		f.nacked = false
		w.emit(s, f.msg)
	case w.faults && d.chance(w.shape.nacks):
		w.seen["nacks"]++
		f.nacked = true
		if f.d.Attempt++; f.d.Attempt >= w.shape.attempts {
			w.removeFlight(s, i)
			w.refuse(s, f.d, f.msg, false)
		}
	default:
		w.removeFlight(s, i)
		w.ack(s, f)
	}
}

// actAll ends all flights that nothing holds up, in one go.
func (w *world) actAll(s *seat) {
	var done []dispatch.Delivery
	s.flights = slices.DeleteFunc(s.flights, func(f *flight) bool {
		if f.offered || f.nacked {
			return false
		}
		w.note("ack with others", f.msg.flow.n, int(f.msg.seq), int(s.group.bit))
		w.unclaim(s, f.msg)
		w.finish(s.group, f.msg, false)
		done = append(done, f.d)
		return true
	})
	if len(done) > 0 {
		s.m.SettleAll(done)
	}
}

func (w *world) removeFlight(s *seat, i int) { s.flights = slices.Delete(s.flights, i, i+1) }

// ack is a handler's Ack. The model notes it first: the node may report it before Settle returns.
func (w *world) ack(s *seat, f *flight) {
	w.note("ack", f.msg.flow.n, int(f.msg.seq), int(s.group.bit))
	w.unclaim(s, f.msg)
	w.finish(s.group, f.msg, false)
	s.m.Settle(f.d)
}

func (w *world) refuse(s *seat, d dispatch.Delivery, m *message, undecodable bool) {
	w.note("refuse", m.flow.n, int(m.seq), int(s.group.bit))
	w.unclaim(s, m)
	w.finish(s.group, m, true)
	s.m.Refuse(d, dispatch.Refusal{Undecodable: undecodable, Reason: "simulated"})
}

func (w *world) unclaim(s *seat, m *message) {
	if s.group.busy[m.key] == m {
		delete(s.group.busy, m.key)
	}
}

// giveBack returns a flight to its group.
func (w *world) giveBack(s *seat, i int) {
	f := s.flights[i]
	w.removeFlight(s, i)
	w.note("return", f.msg.flow.n, int(f.msg.seq), int(s.group.bit))
	w.returned(s, f.msg)
	s.m.Return(f.d)
}

func (w *world) returned(s *seat, m *message) {
	m.at[s.group.bit].taken = false
	if s.group.gone {
		w.waive(s.group, m)
	}
}
