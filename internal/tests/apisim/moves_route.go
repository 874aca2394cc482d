package apisim

import (
	"context"
	"errors"
	"slices"
	"time"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/route"
)

// routeState is the route of a program with moves, as its Resolver knows it. The world's mu guards it.
type routeState struct {
	members []bool      // by receiver
	joined  []time.Time // since when, or zero
	unwell  []time.Time // by receiver: when something was wrong with it last; see well
	change  chan struct{}
	changes int
	changed time.Time // last
}

func newRouteState(n int) *routeState {
	s := &routeState{members: make([]bool, n), joined: make([]time.Time, n), unwell: make([]time.Time, n), change: make(chan struct{})}
	for r := range n {
		s.members[r], s.joined[r] = true, time.Now()
	}
	return s
}

// groupOf is the group of the route that a receiver belongs to: with policies that choose one host all are of one.
func (w *world) groupOf(r int) int {
	switch w.p.Shape.Moves.Policy {
	case toAll:
		return r
	case toGroups, toHashed:
		return r % 2
	}
	return 0
}

// setMember has a host leave the route, or come back. The last one of a group of the route stays.
func (w *world) setMember(r int, in bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.routes
	if s.members[r] == in {
		return
	}
	others := 0
	for o, member := range s.members {
		if member && o != r && (w.p.Shape.Moves.Policy == toAll || w.groupOf(o) == w.groupOf(r)) {
			others++
		}
	}
	if !in && others == 0 {
		return
	}
	s.members[r], s.joined[r] = in, time.Time{}
	if in {
		s.joined[r] = time.Now()
	}
	s.changes++
	s.changed = time.Now()
	close(s.change)
	s.change = make(chan struct{})
	w.noteLocked("the route is %v", s.members)
}

// expectedLocked reports whether all publishers know a member of the route that was one at a moment. The caller must
// hold mu.
func (w *world) expectedLocked(r int, at time.Time) bool {
	known := w.routes.joined[r]
	switch {
	case !known.After(w.began):
	case w.p.Shape.Moves.Watch:
		known = known.Add(100 * time.Millisecond)
	default:
		known = known.Add(37 * time.Second) // the next lookup
	}
	return !known.After(at)
}

// currentLocked is the route now. The caller must hold mu.
func (w *world) currentLocked(topic string) route.Route {
	policies := [...]route.Policy{route.Failover, route.RoundRobin, route.LeastPending, route.Hash, route.All, route.LeastPending, route.Hash}
	p := w.p.Shape.Moves.Policy
	groups := map[int][]string{}
	for r, member := range w.routes.members {
		if member {
			g := 0
			if p == toGroups || p == toHashed {
				g = w.groupOf(r)
			}
			groups[g] = append(groups[g], w.address(r))
		}
	}
	if p != toGroups && p != toHashed {
		return route.Route{Addresses: groups[0], Policy: policies[p], HashKey: "key", Name: topic}
	}
	all := route.Route{Policy: route.All, Name: topic}
	for g := range 2 {
		if len(groups[g]) > 0 {
			all.Groups = append(all.Groups, route.Route{Addresses: groups[g], Policy: policies[p], HashKey: "key"})
		}
	}
	return all
}

// movingResolver is the Resolver of a program with moves; watcher is one that tells of changes.
type movingResolver struct{ w *world }

type movingWatcher struct{ movingResolver }

func (m movingResolver) Resolve(_ context.Context, topic string) (route.Route, error) {
	if m.w.callback("resolve") {
		return route.Route{}, errors.New("apisim: the resolver fails")
	}
	m.w.mu.Lock()
	defer m.w.mu.Unlock()
	return m.w.currentLocked(topic), nil
}

func (m movingWatcher) Watch(ctx context.Context, topic string, tell func(route.Route)) error {
	for {
		m.w.mu.Lock()
		now, change := m.w.currentLocked(topic), m.w.routes.change
		m.w.mu.Unlock()
		tell(now)
		select {
		case <-change:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (w *world) movesResolver() route.Resolver {
	if w.p.Shape.Moves.Watch {
		return movingWatcher{movingResolver{w}}
	}
	return movingResolver{w}
}

// wellLocked reports whether a host has been a member of the route, alive, reachable and read by a prompt handler of
// each group since a moment. The caller must hold mu.
func (w *world) wellLocked(r int, since time.Time) bool {
	s, x := w.routes, w.receivers[r]
	l := x.life
	if !s.members[r] || !w.expectedLocked(r, since) || s.unwell[r].After(since) || l == nil || l.ended() || l.began.After(since) {
		return false
	}
	if w.ailing(r) || l.store != nil && l.store.failed.Load() {
		return false
	}
	for _, g := range x.groups() {
		served := false
		for _, sub := range l.topic("t0").subs {
			served = served || sub.by.plan.Group == g && (sub.mood == "prompt" || w.p.Shape.Moves.Brisk) && sub.ending.IsZero() && !sub.began.IsZero() && !sub.began.After(since)
		}
		if !served {
			return false
		}
	}
	return true
}

// unreadLocked reports whether a host takes connections and gives no credit, as not all of its groups have been there
// since a moment. The caller must hold mu.
func (w *world) unreadLocked(r int, since time.Time) bool {
	l := w.receivers[r].life
	if l == nil || l.ended() {
		return false
	}
	for _, g := range w.receivers[r].groups() {
		if began := l.topic("t0").groups[g]; began.IsZero() || began.After(since) {
			return true
		}
	}
	return false
}

// ailing reports whether a host cannot be reached now.
func (w *world) ailing(r int) bool {
	w.net.mu.Lock()
	defer w.net.mu.Unlock()
	a := w.address(r)
	return w.net.holes[a] || w.net.refused[a] || w.net.mutes[a]
}

// disturb notes that something is or was wrong with a host.
func (w *world) disturb(r int) {
	if w.routes == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.routes.unwell[r] = time.Now()
}

// disturbAiling notes of every host that cannot be reached that this is about to end.
func (w *world) disturbAiling() {
	if w.routes == nil {
		return
	}
	for r := range w.receivers {
		if w.ailing(r) {
			w.disturb(r)
		}
	}
}

// servesLocked reports whether the route has been the same, and every group of it has had a host that is well, since a
// moment. The caller must hold mu.
func (w *world) servesLocked(since time.Time) bool {
	known := since
	if !w.p.Shape.Moves.Watch {
		known = since.Add(-37 * time.Second)
	}
	if w.routes.changed.After(known) {
		return false
	}
	served := map[int]bool{}
	for r, member := range w.routes.members {
		if member {
			if w.p.Shape.Moves.Policy.waits() && w.unreadLocked(r, since) {
				return false
			}
			g := w.groupOf(r)
			served[g] = served[g] || w.wellLocked(r, since)
		}
	}
	for _, ok := range served {
		if !ok {
			return false
		}
	}
	return true
}

// strayAddresses are the addresses that a Manager keeps although they are in no route. One that is silent may have to
// hear yet of what left it, and is dialed for that.
func (w *world) strayAddresses(m *buffstreams.Manager) (stray []string) {
	addresses := m.Stats().Addresses
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range addresses {
		a := addresses[i].Address
		for r, member := range w.routes.members {
			if l := w.receivers[r].life; w.ailing(r) || l != nil && l.how == "killed" && l.silent {
				continue
			}
			if !member && a == w.address(r) && !slices.Contains(stray, a) {
				stray = append(stray, a)
			}
		}
	}
	return stray
}

// everywhere is every receiver.
func (w *world) everywhere() (all []int) {
	for r := range w.receivers {
		all = append(all, r)
	}
	return all
}

// serve subscribes to the topic of the route at every host.
func (w *world) serve() {
	for _, r := range w.receivers {
		if r.life == nil {
			continue
		}
		for _, s := range r.life.subs {
			m := mood("prompt")
			switch {
			case w.p.Shape.Moves.Prompt:
			case w.p.Shape.Moves.Nacks:
				m = pick(w.random(r.n, s.n, 5), mood("nacks"), "always nacks", "nacks once", "slow")
			case w.p.Shape.Moves.Brisk:
				m = pick(w.random(r.n, s.n, 5), mood("prompt"), "slow", "slow")
			default:
				m = pick(w.random(r.n, s.n, 5), mood("prompt"), "prompt", "slow", "slow", "nacks", "stuck", "reads nothing", "nacks once")
			}
			w.do(func() { w.subscribe(s, "t0", m) })
		}
	}
}

// servesNowLocked reports whether every group of the route has a host that lives and is read. The caller must hold mu.
func (w *world) servesNowLocked() bool {
	for r, member := range w.routes.members {
		if member && !w.groupLivesLocked(w.groupOf(r)) {
			return false
		}
	}
	return true
}

// staysAway reports whether a dead host is to stay dead: another one has its place.
func (w *world) staysAway(r *receiver) bool {
	if !w.p.Shape.Moves.StayAway || r.life != nil && !r.life.ended() {
		return false
	}
	for o, member := range w.routes.members {
		if l := w.receivers[o].life; member && l != nil && !l.ended() && w.groupOf(o) == w.groupOf(r.n) {
			return true
		}
	}
	return false
}
