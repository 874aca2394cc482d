package sim

import (
	"fmt"

	"github.com/buffstreams/watermill-buffstreams/internal/flow"
)

// drained says what is left of the flows that count, or nothing.
func (w *world) drained(counts func(*stream) bool) string {
	for _, s := range w.slots {
		for _, c := range s.proc.calls {
			if h := s.proc.heads[c.out]; counts(h.flow) {
				return fmt.Sprintf("a Publish waits for room, with %d messages: %s", len(c.msgs)-c.at, w.describe(h.flow))
			}
		}
		for _, x := range s.proc.waits {
			if counts(x.head.flow) {
				return fmt.Sprintf("a Publish waits for %d to %d: %s", x.First, x.Last, w.describe(x.head.flow))
			}
		}
		for _, l := range s.proc.senders {
			for _, c := range l.relays {
				if next := c.s.settled.Next(); counts(c.s.flow) && next < c.s.durable {
					return fmt.Sprintf("sequence %d of %d does not leave the outbox: %s", next, c.s.durable-1, w.describe(c.s.flow))
				}
			}
		}
		for _, h := range s.proc.order {
			if n := h.out.Pending(); h.flow.box == nil && n > 0 && counts(h.flow) {
				return fmt.Sprintf("%d messages are not settled: %s", n, w.describe(h.flow))
			}
		}
	}
	for _, r := range w.receivers {
		for _, rt := range r.life.order {
			if rt.held.messages > 0 && counts(&stream{id: StreamID{Topic: rt.name}}) {
				return fmt.Sprintf("topic %s holds %+v", rt.name, rt.held)
			}
		}
	}
	return ""
}

// account compares what was published with what became of it.
func (w *world) account() {
	for _, f := range w.flowsInOrder {
		for _, m := range f.msgs {
			switch {
			case !f.dead && !m.safe():
				w.fail(rulePublish, "flow %d: sequence %d was never handled", f.n, m.seq)
			case f.dead && m.life == f.to.life && m.required&^m.done != 0:
				w.fail(rulePublish, "flow %d: sequence %d is held and not handled", f.n, m.seq)
			case m.reports > 0 && !m.rejected, !f.dead && m.rejected && !m.acked && m.reports == 0:
				w.fail(ruleAcked, "flow %d: sequence %d was rejected %v, handled %v and reported %d times",
					f.n, m.seq, m.rejected, m.acked, m.reports)
			}
		}
	}
	for _, c := range w.conns { // half a minute later
		if c.sender == nil {
			c.end(errSilence)
		}
	}
	for range 30 { // idle streams give back their credit
		w.round()
	}
	for _, r := range w.receivers {
		for _, rt := range r.life.order {
			if rt.t == nil {
				continue
			}
			if held := rt.t.Window().Held(); held != (flow.Amount{}) {
				w.fail(ruleCredit, "topic %s: the window holds %+v of %+v when all is over", rt.name, held, r.cfg.Window)
			}
		}
	}
	for _, s := range w.slots {
		if s.proc.budget.Free() != w.shape.keepMemory {
			w.fail(ruleCredit, "process %d: the budget has not got everything back", s.proc.n)
		}
	}
}

// describe says where a flow stands.
func (w *world) describe(f *stream) string {
	s := fmt.Sprintf("flow %d to receiver %d topic %s: %d messages, told below %d", f.n, f.to.n, f.id.Topic, len(f.msgs), f.told.Next())
	if f.to.life == nil {
		return s
	}
	if in := f.to.life.flows[f]; in != nil {
		s += fmt.Sprintf("; received below %d, granted %+v, got %+v, connected %v", in.next, in.granted, in.got, in.conn != nil)
	}
	for _, rt := range f.to.life.order {
		s += fmt.Sprintf("; topic %s holds %+v, granted %+v of %+v, %d named groups missing, stuck %v",
			rt.name, rt.held, rt.credit, f.to.cfg.Window, rt.missing(), rt.stuck)
	}
	return s
}
