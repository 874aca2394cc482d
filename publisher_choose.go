package buffstreams

import (
	"math/rand/v2"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/buffstreams/watermill-buffstreams/internal/acked/sender"
	"github.com/buffstreams/watermill-buffstreams/internal/policy"
	"github.com/buffstreams/watermill-buffstreams/route"
)

// assignAll chooses the address of n messages that the policy sends to one; policy.None: there is none, or it may send
// them to several. So many calls are under way.
func (g *group) assignAll(v *view, n, calls int) int {
	switch {
	case g.policy == route.Failover:
		return g.pickFailover(v.candidates)
	case g.policy == route.Hash || n > 1 || len(v.usable) == 0:
		return policy.None
	}
	return g.pick(v, &loads{group: g, calls: calls})
}

// assign chooses the address of each message: of all of them in one, or of each in more. Both are empty if none is
// usable.
func (g *group) assign(v *view, messages []*message.Message) (one part, more []part) {
	at := g.assignAll(v, len(messages), 0)
	switch {
	case at != policy.None:
		return part{target: g.targets[at], slot: -1, messages: messages}, nil
	case g.policy == route.Failover || len(v.usable) == 0:
		return one, nil
	case g.policy == route.Hash:
		return one, g.assignSlots(v, messages)
	}
	loads := g.newLoads()
	parts := make([]part, len(g.targets))
	for i, msg := range messages {
		parts[g.pick(v, loads)].add(i, msg)
	}
	return one, g.filled(parts)
}

func (p *part) add(i int, msg *message.Message) {
	p.messages, p.index = append(p.messages, msg), append(p.index, i)
}

// pick chooses the address of one message.
func (g *group) pick(v *view, l *loads) int {
	shared := l.calls >= together*len(v.usable)
	turn := g.nextTurn(shared)
	if g.policy == route.RoundRobin {
		return policy.PickRoundRobin(turn, v.candidates, v.usable, l.of)
	}
	if c := g.choice.Load(); shared && c != nil && c.view == v && c.turn == turn && !g.load(c.at).Full {
		return c.at
	}
	at := policy.PickLeastPending(rand.Uint64(), rand.Uint64(), v.candidates, v.usable, l.of) //nolint:gosec // spreads load
	l.add(at)
	if shared {
		g.choice.Store(&choice{v, turn, at})
	}
	return at
}

// pickFailover returns the address that gets everything now, or policy.None.
func (g *group) pickFailover(candidates []policy.Candidate) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.current = policy.PickFailover(g.current, candidates)
	return g.current
}

// filled returns the parts that have messages, of one for each target.
func (g *group) filled(parts []part) []part {
	kept := parts[:0]
	for i, one := range parts {
		if len(one.messages) > 0 {
			one.target, one.slot = g.targets[i], -1
			kept = append(kept, one)
		}
	}
	return kept
}

// together is how many calls of one message in a row go to the same address while there are many at a time, at least as
// many for each usable address: they, the acks, and the calls that follow these then share a write. Each address still
// has enough to do.
const together = 64

// nextTurn returns the turn of a call. It is the same one for up to together calls if these go together.
func (g *group) nextTurn(shared bool) uint64 {
	n := uint64(together)
	if shared {
		n = 1
	}
	return (g.turn.Add(n) - n) / together
}

// choice is the address that LeastPending has chosen for calls that go together.
type choice struct {
	view *view
	turn uint64
	at   int
}

// loads is the load of a group's addresses as one call sees it: it asks once, and adds what it sends itself.
type loads struct {
	group *group
	calls int // of one message each that are under way
	known []bool
	loads []policy.Load
}

// newLoads returns the loads of a call with several messages.
func (g *group) newLoads() *loads {
	return &loads{group: g, known: make([]bool, len(g.targets)), loads: make([]policy.Load, len(g.targets))}
}

func (l *loads) of(i int) policy.Load {
	if l.known == nil { // a call with one message
		return l.group.load(i)
	}
	if !l.known[i] {
		l.known[i], l.loads[i] = true, l.group.load(i)
	}
	return l.loads[i]
}

func (l *loads) add(i int) {
	if l.known != nil { // and then it was looked at, unless there is no other
		l.loads[i].Pending++
	}
}

// load says what a target has to do.
func (g *group) load(i int) (l policy.Load) {
	f := g.targets[i].main.Load()
	if f == nil {
		return l
	}
	if s, ok := f.stream.(*sender.Stream); ok {
		room, unsettled := s.Load()
		l.Full, l.Pending = !room, unsettled
	}
	return l
}

// view is what is known of a group's addresses, but for their load.
type view struct {
	changes    uint64 // that had happened
	candidates []policy.Candidate
	usable     []int
}

// view returns what is known of the group's addresses now. It is made anew after each change, and each tick.
func (p *Publisher) view(g *group) *view {
	changes := p.manager.changes.count.Load()
	if v := g.known.Load(); v != nil && v.changes == changes {
		return v
	}
	v := &view{changes: changes, candidates: g.candidates(time.Now())}
	v.usable = policy.Usable(nil, v.candidates)
	g.known.Store(v)
	return v
}

// candidates returns what is known of the group's addresses.
func (g *group) candidates(now time.Time) []policy.Candidate {
	all := make([]policy.Candidate, len(g.targets))
	for i, t := range g.targets {
		all[i] = policy.Candidate{
			Member: t.Member, State: t.addr.state(), Fresh: t.addr.fresh(now), Stable: t.addr.stable(now), Slow: t.slow.Load(),
		}
	}
	return all
}

// alternative is where a stream should be whose address takes nothing: nil if there is no better one.
func (f *routedStream) alternative() *sender.Sender {
	g := f.group.latest()
	candidates := g.candidates(time.Now())
	usable := policy.Usable(nil, candidates)
	if len(usable) == 0 {
		return nil
	}
	var at int
	switch g.policy {
	case route.Failover:
		at = g.pickFailover(candidates)
	case route.Hash:
		if owner, ok := g.ownerOf(f, candidates); ok {
			at = owner
			break
		}
		fallthrough
	default:
		at = policy.PickLeastPending(rand.Uint64(), rand.Uint64(), candidates, usable, g.load) //nolint:gosec // spreads load
	}
	if at == policy.None || !f.mayMoveTo(g.targets[at].addr) {
		return nil
	}
	return g.targets[at].addr.sender
}

// mayMoveTo tells whether what a stream holds may go to another address: never from TLS to where others could read it.
func (f *routedStream) mayMoveTo(to *address) bool {
	return !f.addr.Load().target.TLS || to.target.TLS || to.target.Network == "unix"
}
