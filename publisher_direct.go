package buffstreams

import (
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/buffstreams/watermill-buffstreams/route"
)

// sendDirect sends messages of which all go to one address that is known to be usable: most calls are such, and need none of
// what calls need that wait for an address or have several parts. ok is false if this call is another one: nothing was done.
func (p *Publisher) sendDirect(s *topicState, r *resolved, messages []*message.Message, timeout time.Duration) (ok bool, err error) {
	if r.single() {
		return true, p.sendAll(r.targets[0], r.targets[0].fixed, messages, timeout)
	}
	if len(r.groups) > 1 || p.relay != nil {
		return false, nil
	}
	g := r.groups[0].latest()
	if !g.started.Load() || g.gone.Load() {
		return false, nil
	}
	at := g.assignAll(p.view(g), len(messages), int(s.calls.Load()))
	if at == route.None || !g.targets[at].enter() {
		return false, nil
	}
	t := g.targets[at]
	defer t.end()
	return true, p.sendAll(t, p.flow(g, t), messages, timeout)
}

// assignAll chooses the address of n messages that the policy sends to one; route.None: there is none, or it may send them to
// several. So many calls are under way.
func (g *group) assignAll(v *view, n, calls int) int {
	switch {
	case g.policy == route.Failover:
		g.mu.Lock()
		defer g.mu.Unlock()
		g.current = route.PickFailover(g.current, v.candidates)
		return g.current
	case g.policy == route.Hash || n > 1 || len(v.usable) == 0:
		return route.None
	}
	return g.pick(v, &loads{group: g, calls: calls})
}
