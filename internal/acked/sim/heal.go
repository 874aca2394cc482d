package sim

import (
	"time"
)

// rounds is how many times 50 ms everything has to come to an end once all is well.
const rounds = 2400

// heal ends all faults and waits until everything has drained, first beside a topic that is stuck.
func (w *world) heal() {
	w.faults = false
	w.shape.nacks = 0
	for _, r := range w.receivers {
		if l := r.life; l != nil && (l.broken || l.leaves) {
			w.kill(r)
		}
		if r.life == nil {
			w.start(r)
		}
		for _, rt := range r.life.order {
			rt.stuck = false
			for _, s := range rt.seats {
				w.join(s)
				s.deaf = false
			}
		}
	}
	for _, c := range w.conns {
		c.up.stalled, c.down.stalled = time.Time{}, time.Time{}
	}
	for len(w.procs) > len(w.slots) { // predecessors
		for _, p := range w.procs {
			if p.old {
				p.die()
				break
			}
		}
	}
	if w.shape.ample && len(w.shape.topics) > 1 && w.dice.chance(300) {
		w.stick(true)
		w.drain(ruleFair, func(f *stream) bool { return f.id.Topic != w.shape.topics[0] })
		w.stick(false)
	}
	w.drain(ruleDrains, func(*stream) bool { return true })
	if w.violation == nil {
		w.account()
	}
}

// stick stops a topic everywhere, or lets it go on.
func (w *world) stick(stuck bool) {
	for _, r := range w.receivers {
		r.life.order[0].stuck = stuck
	}
}

// drain lets everything run without a fault until the flows that count have nothing left.
func (w *world) drain(rule string, counts func(*stream) bool) {
	for range rounds {
		if w.violation != nil {
			return
		}
		if w.drained(counts) == "" {
			return
		}
		w.round()
	}
	w.fail(rule, "%s", w.drained(counts))
}

// round is 50 ms in a healthy world.
func (w *world) round() {
	w.step++
	w.now = w.now.Add(50 * time.Millisecond)
	w.tick()
	for range 3 {
		for _, s := range w.slots {
			if s.box != nil {
				s.box.sync()
			}
			s.proc.work()
			for _, l := range s.proc.senders {
				for _, c := range l.relays {
					c.step(c.s.box.epoch)
				}
				l.dial()
				l.flush(1 << 17)
			}
		}
		w.moveAll(true)
		for _, s := range append([]*seat(nil), w.seats...) {
			for !s.rt.stuck && w.violation == nil {
				w.take(s, 1000)
				if len(s.flights) == 0 {
					break
				}
				w.act(s, 0)
			}
		}
		for _, c := range w.conns {
			if !c.over {
				c.port.Flush()
			}
		}
		w.moveAll(false)
		w.settle()
	}
}

func (w *world) moveAll(up bool) {
	for _, c := range append([]*conn(nil), w.conns...) {
		if w.violation != nil {
			return
		}
		if up {
			c.deliverUp(1 << 30)
		} else {
			c.deliverDown(1 << 30)
		}
	}
}
