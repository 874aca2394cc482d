package sim

import (
	"slices"

	"github.com/buffstreams/watermill-buffstreams/internal/dispatch"
)

// group is a consumer group as the model knows it.
type group struct {
	rt    *rtopic
	bit   uint8
	name  string
	gone  bool
	first map[orderKey]uint64 // sequence given out last for the first time
	busy  map[int]*message    // that has claimed a key
}

// orderKey is what order holds within: a flow, or a key in it.
type orderKey struct {
	flow *stream
	key  int
}

// seat is a place for a member of a group: it joins and leaves. It does what a subscription does, without goroutines:
// flights stand for its lanes.
type seat struct {
	rt      *rtopic
	plan    *groupPlan
	group   *group
	m       *dispatch.Member // nil: away
	ready   bool             // it was notified
	waits   bool             // a lane waits for that
	deaf    bool             // it does not take what it is offered
	flights []*flight
}

type flight struct {
	d       dispatch.Delivery
	msg     *message
	offered bool // and not taken by the handler yet
	nacked  bool
}

// groupFor finds or makes the model's side of a group. It is nil when a life has had too many without a name.
func (w *world) groupFor(s *seat) *group {
	rt := s.rt
	for _, g := range rt.groups {
		if s.plan.name != "" && g.name == s.plan.name && !g.gone {
			return g
		}
	}
	if g := rt.vacant; g != nil { // the first to come has it, whatever its name
		rt.vacant, g.name = nil, s.plan.name
		w.skipAll(g)
		return g
	}
	if s.plan.name == "" && len(rt.groups)+rt.missing() >= maxGroups {
		return nil
	}
	g := &group{
		rt: rt, bit: uint8(len(rt.groups)), name: s.plan.name,
		first: map[orderKey]uint64{}, busy: map[int]*message{},
	}
	rt.groups = append(rt.groups, g)
	rt.alive |= 1 << g.bit
	return g
}

// missing is the number of named groups that do not exist. Each has to find its place: the topic gives no credit while
// one that is declared does not exist.
func (rt *rtopic) missing() (n int) {
	for i := range rt.plan.groups {
		name := rt.plan.groups[i].name
		exists := slices.ContainsFunc(rt.groups, func(g *group) bool { return g.name == name && !g.gone })
		if name != "" && !exists {
			n++
		}
	}
	return n
}

// unused reports whether the real topic has no group: none yet, or it was retired, and the node made another one since.
func (rt *rtopic) unused() bool { return len(rt.groups) == 0 || rt.t != nil && rt.t.Ended() }

// topic returns the real topic.
func (rt *rtopic) topic() *dispatch.Topic {
	if rt.t == nil || rt.t.Ended() {
		rt.t = rt.life.node.Topic(rt.name)
	}
	return rt.t
}

func (w *world) join(s *seat) {
	if s.m != nil {
		return
	}
	g := w.groupFor(s)
	if g == nil {
		return
	}
	if w.faults && w.dice.chance(200) && s.plan.name != "" { // it exists, and has no member yet
		s.rt.topic().Initialize(s.plan.name)
		return
	}
	*s = seat{rt: s.rt, plan: s.plan, group: g, ready: true}
	s.m = s.rt.topic().Join(s.plan.name, func() { s.ready = true })
	s.deaf = w.faults && w.dice.chance(100)
	w.seats = append(w.seats, s)
	w.note("join", s.rt.life.recv.n, int(g.bit), 0)
}

// quit ends a membership: what it has goes back.
func (w *world) quit(s *seat) {
	for len(s.flights) > 0 {
		w.giveBack(s, 0)
	}
	rt, g := s.rt, s.group
	s.m.Leave()
	s.m, s.group = nil, nil
	w.seats = slices.DeleteFunc(w.seats, func(o *seat) bool { return o == s })
	w.note("quit", rt.life.recv.n, int(g.bit), 0)
	w.seen["members left"]++
	if s.plan.name != "" || g.gone {
		return
	}
	for _, other := range rt.groups {
		if other != g && !other.gone {
			w.remove(g)
			return
		}
	}
	rt.vacant = g
}

// drop ends a named group in the middle of its work, as its owner can.
func (w *world) drop(s *seat) {
	rt, g := s.rt, s.group
	others := 0
	for _, other := range rt.groups {
		if other != g && !other.gone {
			others++
		}
	}
	if others == 0 || g.gone || g.name == "" || len(rt.groups)+rt.missing() >= maxGroups {
		return
	}
	w.note("drop", rt.life.recv.n, int(g.bit), 0)
	w.seen["groups dropped"]++
	rt.topic().Drop(g.name)
	w.remove(g)
	for _, other := range slices.Clone(w.seats) {
		if other.group == g {
			w.quit(other)
			w.join(other)
		}
	}
}

// remove follows the end of a group: what its members do not hold waits for it no longer.
func (w *world) remove(g *group) {
	g.gone = true
	g.rt.alive &^= 1 << g.bit
	for _, f := range w.flowsInOrder {
		if f.to != g.rt.life.recv || f.id.Topic != g.rt.name {
			continue
		}
		for _, m := range f.msgs {
			if m != nil && m.life == g.rt.life && !m.at[g.bit].taken {
				w.waive(g, m)
			}
		}
	}
}

// forgetSeats drops the members of a life that is over.
func (w *world) forgetSeats(l *life) {
	w.seats = slices.DeleteFunc(w.seats, func(s *seat) bool { return s.rt.life == l })
}
