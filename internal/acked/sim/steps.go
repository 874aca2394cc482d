package sim

import (
	"slices"
	"time"

	"github.com/buffstreams/watermill-buffstreams/internal/session"
)

// once does one thing. What happens often comes first.
func (w *world) once() {
	d := w.dice
	switch n := d.n(1000); {
	case n < 110:
		w.publishSome()
	case n < 260:
		l := w.anySender()
		l.dial()
		l.flush(w.shape.segment)
	case n < 480:
		w.moveBytes()
	case n < 600:
		w.flushPort()
	case n < 820:
		w.handle()
	case n < 880:
		w.pump()
	case n < 910:
		w.tick()
	case n < 930:
		pick(d, w.procs).work()
	case n < 940:
		if s := pick(d, w.slots); s.box != nil {
			s.box.sync()
		}
	default:
		w.disturb()
	}
}

// pick returns any of them.
func pick[T any](d dice, all []T) T { return all[d.n(len(all))] }

func (w *world) anySender() *sender {
	return pick(w.dice, pick(w.dice, w.procs).senders)
}

func (w *world) publishSome() {
	if w.published-w.unpublished >= w.shape.target {
		return
	}
	d := w.dice
	s := pick(d, w.slots)
	l, topic := pick(d, s.proc.senders), pick(d, w.shape.topics)
	if s.box != nil && d.chance(700) {
		s.box.append(l, topic)
		return
	}
	if len(s.proc.calls) < 8 { // the others wait behind them
		s.proc.publish(l, topic, session.Level(d.n(3)))
	}
}

// moveBytes lets bytes arrive somewhere.
func (w *world) moveBytes() {
	if len(w.conns) == 0 {
		return
	}
	d := w.dice
	c, up := pick(d, w.conns), d.chance(500)
	p := &c.down
	if up {
		p = &c.up
	}
	if w.now.Before(p.stalled) || p.idle() {
		return
	}
	n := 1 << 30
	if d.chance(250) {
		n = 1 + d.n(1+d.n(2000))
	}
	w.note("arrive", c.id, p.written-p.arrived, min(n, 1<<20))
	if up {
		c.deliverUp(n)
	} else {
		c.deliverDown(n)
	}
}

func (w *world) flushPort() {
	if len(w.conns) == 0 {
		return
	}
	if c := pick(w.dice, w.conns); !c.over {
		c.port.Flush()
	}
}

// handle lets a member take and handle.
func (w *world) handle() {
	if len(w.seats) == 0 {
		return
	}
	d := w.dice
	s := pick(d, w.seats)
	if s.rt.stuck {
		return
	}
	w.take(s, 1+d.n(8))
	if d.chance(150) && w.violation == nil {
		w.actAll(s)
		return
	}
	for range 1 + d.n(4) {
		if len(s.flights) == 0 || s.rt.life.killed || w.violation != nil {
			return
		}
		w.act(s, d.n(len(s.flights)))
		w.take(s, d.n(3))
	}
}

// pump lets relays work.
func (w *world) pump() {
	l := w.anySender()
	if len(l.relays) > 0 {
		c := pick(w.dice, l.relays)
		c.step(c.s.box.epoch)
	}
}

func (w *world) tick() {
	for _, p := range w.procs {
		for _, l := range p.senders {
			if w.now.Sub(l.ticked) >= 100*time.Millisecond {
				l.tick()
			}
		}
	}
	w.expire()
}

// expire ends connections from which nothing was heard.
func (w *world) expire() {
	for _, c := range w.conns {
		if !c.over && w.now.Sub(c.heard) >= 30*time.Second {
			w.seen["connections silent"]++
			c.end(errSilence)
		}
	}
}

// settle does what follows from a step at once.
func (w *world) settle() {
	for _, r := range w.receivers {
		if r.life != nil && r.life.killed {
			w.kill(r)
		}
	}
	w.conns = slices.DeleteFunc(w.conns, (*conn).gone)
}
