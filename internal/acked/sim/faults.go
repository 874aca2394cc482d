package sim

import (
	"errors"
	"time"

	"github.com/buffstreams/watermill-buffstreams/internal/wire"
)

var errSilence = errors.New("sim: nothing was heard for too long")

// disturb lets a fault happen, if the seed knows it.
func (w *world) disturb() {
	d, s := w.dice, &w.shape
	// One step in sixteen comes here: the odds are per mille of all steps.
	for _, f := range [...]struct {
		odds int
		do   func()
	}{
		{s.cuts, w.cutSome}, {s.stalls, w.stallSome}, {s.hangs, w.hangSome}, {s.kills, w.killSome},
		{s.leaves, w.leaveSome}, {s.dies, w.dieSome}, {s.jumps, w.jump}, {s.quits, w.quitSome},
		{s.drops, w.dropSome}, {s.strangers, w.intrude}, {s.handovers, w.handOver},
	} {
		if d.chance(f.odds * 4) {
			f.do()
		}
	}
	w.mend()
}

func (w *world) cutSome() {
	if len(w.conns) > 0 {
		c := pick(w.dice, w.conns)
		c.breaks()
		w.note("cut", c.id, c.up.written-c.up.arrived, c.down.written-c.down.arrived)
		w.seen["connections cut"]++
	}
}

// stallSome delays what is on its way.
func (w *world) stallSome() {
	if len(w.conns) == 0 {
		return
	}
	c := pick(w.dice, w.conns)
	until := w.now.Add(time.Duration(w.dice.n(2000)) * time.Millisecond)
	if w.dice.chance(500) {
		c.up.stalled = until
	} else {
		c.down.stalled = until
	}
	w.note("stall", c.id, 0, 0)
	w.seen["delays"]++
}

// hangSome lets a sender give its connection up, while the node knows nothing of that: a newer one comes beside it.
func (w *world) hangSome() {
	l := w.anySender()
	if l.conn == nil {
		return
	}
	c := l.conn
	l.hangUp()
	c.up.closed = w.dice.chance(500)
	w.seen["connections abandoned"]++
}

func (w *world) killSome() {
	if r := pick(w.dice, w.receivers); r.life != nil {
		w.kill(r)
	}
}

func (w *world) leaveSome() {
	if r := pick(w.dice, w.receivers); r.life != nil {
		w.leave(r)
	}
}

// dieSome ends a process. One with an outbox may go on for a while beside its successor.
func (w *world) dieSome() {
	d := w.dice
	p := pick(d, w.procs)
	for _, s := range w.slots {
		if s.proc != p {
			continue
		}
		if s.box == nil {
			p.die()
			w.employ(s)
			return
		}
		stays := d.chance(w.shape.zombies) && len(w.procs) < len(w.slots)+2
		if stays {
			p.stepAside()
		}
		s.box.crash()
		if !stays {
			p.die()
		}
		w.employ(s)
		return
	}
	p.die() // a predecessor that had gone on until now
}

// stepAside lets a process go on with what it knows of its outbox, which is a successor's now.
func (p *process) stepAside() {
	p.w.seen["predecessors that go on"]++
	p.old = true
	for _, l := range p.senders {
		for _, c := range l.relays {
			c.s = c.s.view()
		}
	}
}

// jump lets time pass for everybody, or for one process that was suspended.
func (w *world) jump() {
	d := w.dice
	far := time.Duration(d.n(40_000)) * time.Millisecond
	w.note("jump", int(far/time.Millisecond), 0, 0)
	w.seen["clock jumps"]++
	if d.chance(500) {
		w.now = w.now.Add(far)
		return
	}
	for _, l := range pick(d, w.procs).senders {
		l.skew += far
	}
}

func (w *world) quitSome() {
	if len(w.seats) > 0 {
		w.quit(pick(w.dice, w.seats))
	}
}

func (w *world) dropSome() {
	if len(w.seats) > 0 {
		w.drop(pick(w.dice, w.seats))
	}
}

// handOver replaces an outbox's relay by another in the same process.
func (w *world) handOver() {
	l := w.anySender()
	if len(l.relays) == 0 || l.proc.old {
		return
	}
	c := pick(w.dice, l.relays)
	if c.o == nil || c.o.Err() != nil {
		return
	}
	if l.conn != nil {
		l.flush(1 << 30) // an Open that still waits would be taken for the successor's
	}
	c.end()
	c.begin(c.s.box.epoch)
	w.note("hand over", c.s.flow.n, 0, 0)
	w.seen["relays replaced"]++
}

// intrude lets a stranger try another's publisher id, and sequences that are not its own.
func (w *world) intrude() {
	d := w.dice
	if len(w.flowsInOrder) == 0 {
		return
	}
	f := pick(d, w.flowsInOrder)
	l := f.to.life
	if l == nil || l.leaves || l.bound[f.id.Publisher] == nil || l.bound[f.id.Publisher].secret != f.secret {
		return
	}
	c := w.connect(l, nil)
	epoch, secret := 1+d.Uint64N(5), d.bytes16()
	frames := []*wire.Frame{
		{Body: &wire.Frame_Hello{Hello: &wire.Hello{Version: 1, MaxFrame: 1 << 20}}},
		{Body: &wire.Frame_Open{Open: &wire.Open{
			Handle: 1, Publisher: f.id.Publisher[:], Epoch: epoch, Secret: secret[:], Stream: f.id.Stream,
			Topic: f.id.Topic, Base: 1 + d.Uint64N(2000), WantMessages: 10, WantBytes: 10, LeastBytes: 10,
		}}},
		{Body: &wire.Frame_Release{Release: &wire.Release{Handle: 1}}},
		{Body: &wire.Frame_RejectSeen{RejectSeen: &wire.RejectSeen{Handle: 1, Sequence: 1 + d.Uint64N(1000)}}},
	}
	for _, frame := range frames {
		b, err := w.enc.AppendControl(nil, frame)
		if err != nil {
			w.fail(ruleProtocol, "stranger: %v", err)
			return
		}
		c.push(&c.up, b, func(any) {})
	}
	w.seen["strangers"]++
}

// mend lets what is away come back.
func (w *world) mend() {
	d := w.dice
	for _, r := range w.receivers {
		switch l := r.life; {
		case l == nil:
			if d.chance(150) {
				w.start(r)
			}
		case l.leaves && d.chance(150):
			w.leave(r)
		case l.broken && d.chance(100):
			w.kill(r)
		default:
			rt := pick(d, l.order)
			if s := pick(d, rt.seats); d.chance(250) {
				w.join(s)
			}
			if d.chance(30) {
				rt.stuck = !rt.stuck
			}
		}
	}
}
