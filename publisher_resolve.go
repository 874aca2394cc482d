package buffstreams

import (
	"context"
	"slices"
	"sync/atomic"
	"time"

	"github.com/buffstreams/watermill-buffstreams/internal/policy"
	"github.com/buffstreams/watermill-buffstreams/route"
)

// resolve returns where a topic leads. It looks a topic up that is new; later lookups go on in the background.
func (p *Publisher) resolve(w *callWait, s *topicState) (*resolved, error) {
	if r := s.resolved.Load(); r != nil {
		return r, nil
	}
	d, ok, err := parseTopic(s.topic, p.cfg.Resolver != nil)
	if err != nil {
		return nil, err
	}
	if ok {
		return p.resolveAddress(s, d)
	}
	found, err := p.lookUp(w, s)
	if err != nil {
		return nil, err
	}
	if err := p.change(s, found); err != nil {
		return nil, err
	}
	return s.resolved.Load(), nil
}

// resolveAddress is resolve for a topic that names its address.
func (p *Publisher) resolveAddress(s *topicState, d destination) (*resolved, error) {
	t, err := p.newTarget(s.topic, d, route.Member{Address: formatAddress(d.target), Attributes: route.Attributes{Weight: 1}}, false)
	if err != nil {
		return nil, err
	}
	g := &group{targets: []*target{t}, current: policy.None, place: new(atomic.Pointer[group]), identity: newIdentity()}
	p.adopt(s, &resolved{groups: []*group{g}, targets: g.targets})
	return s.resolved.Load(), nil
}

// change makes a route that was looked up the topic's, unless it is already.
func (p *Publisher) change(s *topicState, found route.Route) error {
	p.changing.Lock()
	defer p.changing.Unlock()
	last := s.resolved.Load()
	if last != nil && last.route.Equal(found) {
		return nil
	}
	_, fixed := p.cfg.Resolver.(route.Static)
	next := &resolved{route: found.Clone(), dynamic: !fixed}
	routed := next.dynamic || len(found.Groups) > 0 || len(found.Members()) > 1 || p.relay != nil // whose next life may have another route
	var made []*target
	for i, r := range groupsOf(found) {
		g, fresh, err := p.newGroup(s.topic, r, routed, last)
		made = append(made, fresh...)
		if err != nil {
			p.leaveNew(made)
			return err
		}
		g.dynamic, g.index, g.pinned = next.dynamic, i, pinned(found)
		next.groups = append(next.groups, g)
		next.targets = append(next.targets, g.targets...)
	}
	if last != nil {
		for i, old := range followed(last.groups, next.groups) {
			if old != nil {
				next.groups[i].follow(old)
			}
		}
	}
	p.adopt(s, next)
	return nil
}

// newGroup returns the group of a route, and those of its targets that are new. Targets that the topic has already are
// kept.
func (p *Publisher) newGroup(topic string, r route.Route, routed bool, last *resolved) (g *group, made []*target, err error) {
	name := r.Name
	if name == "" {
		name = topic
	}
	g = &group{
		policy: r.Policy, hashKey: r.HashKey, current: policy.None, place: new(atomic.Pointer[group]), identity: newIdentity(),
		slots: &slots{}, groupsSaid: &groupsSaid{},
	}
	g.member, g.leave = context.WithCancel(context.Background())
	for _, m := range membersOf(r) {
		address, err := parseAddress(m.Address)
		if err != nil {
			return nil, made, err
		}
		address.ServerName = m.ServerName
		m.Address = canonical(m.Address) // by which Hash chooses: all publishers must have the same
		t := last.find(name, m)
		if t == nil {
			if t, err = p.newTarget(topic, destination{address, name}, m, routed); err != nil {
				return nil, made, err
			}
			made = append(made, t)
		}
		g.targets = append(g.targets, t)
	}
	return g, made, nil
}

// find returns the target at an address, or nil.
func (r *resolved) find(name string, m route.Member) *target {
	if r == nil {
		return nil
	}
	for _, t := range r.targets {
		if t.fixed == nil && t.name == name && t.Member == m {
			return t
		}
	}
	return nil
}

// followed returns which of the last route's groups each of the next one's takes the place of: one that has an address
// in common, else, in their order, one of those that have none. nil: it is a new one. What is pinned to an address
// follows no other address.
func followed(last, next []*group) []*group {
	pairs, taken := make([]*group, len(next)), map[*group]bool{}
	match := func(fits func(old, g *group) bool) {
		for i, g := range next {
			if pairs[i] != nil {
				continue
			}
			if k := slices.IndexFunc(last, func(old *group) bool { return !taken[old] && fits(old, g) }); k >= 0 {
				pairs[i], taken[last[k]] = last[k], true
			}
		}
	}
	match((*group).shares)
	match(func(old, g *group) bool { return !old.pinned && !g.pinned })
	return pairs
}

// shares tells whether two groups have an address in common.
func (g *group) shares(o *group) bool {
	for _, t := range g.targets {
		if slices.ContainsFunc(o.targets, func(other *target) bool { return other.isAt(t) }) {
			return true
		}
	}
	return false
}

// has tells whether an address is one of the group's.
func (g *group) has(a *address) bool { return g.indexOf(a) >= 0 }

// indexOf returns the index of the target at an address, or -1.
func (g *group) indexOf(a *address) int {
	return slices.IndexFunc(g.targets, func(t *target) bool { return t.addr == a })
}

// follow takes the place of an earlier group.
func (g *group) follow(last *group) {
	last.mu.Lock()
	defer last.mu.Unlock()
	g.place, g.identity = last.place, last.identity
	g.slots, g.groupsSaid = last.slots, last.groupsSaid
	g.member, g.leave = last.member, last.leave
	g.started.Store(last.started.Load())
	g.turn.Store(last.turn.Load())
	if last.current != policy.None {
		for i, t := range g.targets {
			if t.addr == last.targets[last.current].addr {
				g.current = i
			}
		}
	}
}

// adopt makes next the topic's route. What the targets hold that are in it no longer is still looked after.
func (p *Publisher) adopt(s *topicState, next *resolved) {
	routed := next.dynamic || slices.ContainsFunc(next.targets, func(t *target) bool { return t.addr != nil && t.fixed == nil })
	if routed {
		p.manager.joinRouting(p) // first: no address is lost between the look at it below and this
	}
	p.mu.Lock()
	last := s.resolved.Load()
	if last != nil && last.dynamic == next.dynamic && !next.dynamic {
		p.mu.Unlock() // another call was faster
		p.leaveNew(next.targets)
		return
	}
	kept := map[*target]bool{}
	for _, t := range next.targets {
		kept[t] = true
	}
	if last != nil {
		for _, t := range last.targets {
			if kept[t] {
				delete(kept, t)
			} else {
				s.former = append(s.former, t)
			}
		}
		s.retireLocked(last, next)
	}
	for _, g := range next.groups {
		g.place.Store(g)
	}
	for _, t := range next.targets {
		if kept[t] {
			p.joinLocked(t)
		}
	}
	s.resolved.Store(next)
	if routed {
		p.routed[s] = struct{}{}
		if s.at.IsZero() {
			s.at = time.Now().Add(refreshEvery)
		}
		if next.dynamic {
			p.watchLocked(s)
		}
		for t := range kept { // the new ones: they were dialed before, and may have failed
			if t.addr != nil && t.addr.isLost() {
				s.lostLocked()
			}
		}
	}
	p.mu.Unlock()
	if routed {
		p.manager.changes.signal() // calls that wait look at the new route
	}
}

// retireLocked gives up the groups of the last route that no group of the next one follows. One whose addresses another
// group has taken over leads there from now on. The others keep what they hold until it is settled. The caller must
// hold mu.
func (s *topicState) retireLocked(last, next *resolved) {
	for _, old := range last.groups {
		if slices.ContainsFunc(next.groups, func(g *group) bool { return g.place == old.place }) {
			continue
		}
		s.retired = append(s.retired, old)
		if heir := slices.IndexFunc(next.groups, old.shares); heir >= 0 && !old.pinned {
			old.place.Store(next.groups[heir])
		} else {
			old.leave()
		}
	}
}

// leaveNew gives up targets of a route that is not adopted.
func (p *Publisher) leaveNew(targets []*target) {
	for _, t := range targets {
		p.release(t)
	}
}

// enter begins a use of a topic's state that Close waits for. It returns false if the state is being forgotten, or the
// Publisher is closed.
func (p *Publisher) enter(s *topicState) bool {
	if !s.enter() {
		return false
	}
	if p.closed.Load() {
		p.end(s)
		return false
	}
	return true
}
