package sim

import (
	"fmt"
	"time"

	"github.com/buffstreams/watermill-buffstreams/internal/flow"
	"github.com/buffstreams/watermill-buffstreams/internal/session"
)

// shape is what a seed makes of the world: how much of everything, and which faults it knows. Not every seed knows
// every fault: what one fault hides another seed shows.
type shape struct {
	target int // messages to publish
	steps  int // at most, before everything heals

	slots  int // publishers' processes
	boxes  int // of these have an outbox
	batch  int // messages of a Publish, at most
	small  int // bytes of a message, at most
	large  int // of one in twenty
	huge   bool
	toxic  int // per mille
	topics []string

	keepMessages, keepBytes, keepMemory int // the senders' windows
	forgetAfter                         time.Duration
	segment                             int // bytes of one flush, about

	ample bool // no budget binds

	// Per mille, of the steps or of the occasions.
	cuts, stalls, hangs, kills, leaves, dies, zombies, jumps, quits, drops, strangers, handovers int
	nacks, attempts, loadFails, saveFails                                                        int
}

func newShape(d dice) shape {
	s := shape{
		target: d.between(800, 1400), steps: 30_000,
		slots: d.between(1, 4), batch: d.between(1, 24), small: d.between(8, 90),
		large: d.between(100, 2000), huge: d.chance(120), segment: d.between(1, 8000),
	}
	s.boxes = d.n(s.slots + 1)
	for i := range d.between(1, 3) {
		s.topics = append(s.topics, fmt.Sprintf("t%d", i))
	}
	if d.chance(300) {
		s.toxic = d.between(1, 30)
	}
	s.keepMessages = 1 + d.n(1+d.n(400))
	s.keepBytes = 2100 + d.n(40_000)
	s.ample = d.chance(600)
	s.keepMemory = 3 * 8 * (s.keepBytes + 80_000)
	if !s.ample {
		s.keepMemory = s.keepBytes + d.n(40_000)
	}
	if s.huge {
		s.keepBytes += 80_000
		s.keepMemory += 200_000
	}
	s.forgetAfter = []time.Duration{0, time.Second, 5 * time.Minute}[d.n(3)]
	s.faults(d)
	return s
}

func (s *shape) faults(d dice) {
	knob := func(often, most int) int {
		if !d.chance(often) {
			return 0
		}
		return 1 + d.n(most)
	}
	s.cuts = knob(800, 12)
	s.stalls = knob(500, 10)
	s.hangs = knob(500, 6)
	s.kills = knob(550, 3)
	s.leaves = knob(300, 3)
	s.dies = knob(550, 3)
	s.zombies = knob(600, 800)
	s.jumps = knob(600, 4)
	s.quits = knob(600, 12)
	s.drops = knob(200, 3)
	s.strangers = knob(300, 5)
	s.handovers = knob(300, 5)
	s.nacks = knob(500, 200)
	s.attempts = 1000
	if d.chance(300) {
		s.attempts = d.between(1, 4)
	}
	s.loadFails = knob(150, 100)
	s.saveFails = knob(250, 6)
}

// newReceiver makes a receiver's configuration.
func (w *world) newReceiver(n int) *receiver {
	d := w.dice
	r := &receiver{w: w, n: n}
	largest := 2000
	bytes := session.EncodedSize(largest) + d.n(1+d.n(60_000))
	if w.shape.huge && d.chance(500) { // else what is too large has no room in the window either
		bytes += 100_000
	}
	r.cfg = NodeConfig{
		Window:     flow.Amount{Messages: 1 + d.n(1+d.n(400)), Bytes: bytes},
		MaxMessage: largest, Groups: map[string][]string{},
	}
	r.cfg.Memory = bytes * len(w.shape.topics)
	if !w.shape.ample {
		r.cfg.Memory = bytes + d.n(bytes)
	}
	if d.chance(500) {
		r.store = &store{w: w, recv: r, durable: map[StreamID]*stored{}}
	}
	for _, name := range w.shape.topics {
		r.plans = append(r.plans, w.planTopic(r, name))
	}
	return r
}

func (w *world) planTopic(r *receiver, name string) *topicPlan {
	d := w.dice
	p := &topicPlan{name: name}
	named := d.n(3)
	for i := range named {
		g := groupPlan{name: fmt.Sprintf("g%d", i), members: d.between(1, 3), flights: d.between(1, 6), keyed: d.chance(300)}
		if d.chance(500) {
			g.flights = 1
		}
		p.groups = append(p.groups, g)
	}
	if named > 0 && d.chance(700) {
		for _, g := range p.groups {
			r.cfg.Groups[name] = append(r.cfg.Groups[name], g.name)
		}
	}
	if named == 0 || d.chance(200) {
		p.groups = append(p.groups, groupPlan{members: d.between(1, 2), flights: d.between(1, 4), keyed: d.chance(200)})
	}
	return p
}
