package buffstreams

import (
	"time"

	"github.com/buffstreams/watermill-buffstreams/internal/policy"
)

// tick keeps the time of the topics that have routes.
func (p *Publisher) tick(now time.Time) {
	p.mu.Lock()
	topics := make([]*topicState, 0, len(p.routed))
	for s := range p.routed {
		topics = append(topics, s)
	}
	p.mu.Unlock()
	if p.plain != nil {
		p.plain.tick()
	}
	for _, s := range topics {
		if !p.enter(s) {
			continue
		}
		r := s.resolved.Load()
		if r.dynamic {
			p.refreshDue(s, now)
		}
		for _, g := range r.groups {
			p.tickGroup(g, now)
		}
		p.tickRetired(s, now)
		p.tickFormer(s)
		p.end(s)
	}
}

// tickGroup finds out which addresses are slow, and ends or moves streams that need not be where they are.
func (p *Publisher) tickGroup(g *group, now time.Time) {
	p.compareGroups(g)
	if p.relay != nil || p.plain != nil || g.targets[0].fixed != nil {
		return
	}
	defer g.known.Store(nil) // what is slow, or stable, may have changed
	for _, t := range g.targets {
		if p.reap(t) {
			t.moveAway()
		}
	}
	g.tickSlow(now)
	p.tickSlots(g, now)
}

// tickSlow finds out which addresses are set aside, and frees what they were not sent.
func (g *group) tickSlow(now time.Time) {
	ages := make([]time.Duration, len(g.targets))
	var unsent []*routedStream
	for _, t := range g.targets {
		for _, f := range t.flows() {
			i := g.indexOf(f.addr.Load())
			if i < 0 {
				continue
			}
			at, age := g.targets[i], f.age(now)
			ages[i] = max(ages[i], age)
			if min(age, at.addr.readyFor(now)) >= policy.SlowAfter && f.nothingSent() {
				at.rests = now.Add(restFor)
				unsent = append(unsent, f)
			}
		}
	}
	for i, slow := range policy.Slow(ages) {
		g.targets[i].slow.Store(slow || now.Before(g.targets[i].rests))
	}
	for _, f := range unsent {
		f.free(now)
	}
}

// tickRetired looks after the slots of groups that are in the route no longer, and forgets those that hold nothing.
func (p *Publisher) tickRetired(s *topicState, now time.Time) {
	p.mu.Lock()
	retired := s.retired
	p.mu.Unlock()
	if len(retired) == 0 {
		return
	}
	var kept []*group
	for _, g := range retired {
		if p.tickSlots(g, now); !g.slots.close() {
			kept = append(kept, g)
		}
	}
	p.mu.Lock()
	s.retired = append(kept, s.retired[len(retired):]...)
	p.mu.Unlock()
}

// tickFormer moves what addresses hold that left the route, and forgets those that hold nothing.
func (p *Publisher) tickFormer(s *topicState) {
	p.mu.Lock()
	former := s.former
	p.mu.Unlock()
	if len(former) == 0 {
		return
	}
	var left []*target
	for _, t := range former {
		p.reap(t)
		if t.giveUp() {
			left = append(left, t)
			continue
		}
		t.moveAway()
	}
	if len(left) == 0 {
		return
	}
	gone := map[*target]bool{}
	for _, t := range left {
		gone[t] = true
	}
	p.mu.Lock()
	kept := make([]*target, 0, len(s.former))
	for _, t := range s.former {
		if !gone[t] {
			kept = append(kept, t)
		}
	}
	s.former = kept
	p.mu.Unlock()
	p.leave(left)
}
