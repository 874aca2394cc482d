package buffstreams

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/buffstreams/watermill-buffstreams/internal/acked/sender"
	"github.com/buffstreams/watermill-buffstreams/internal/session"
	"github.com/buffstreams/watermill-buffstreams/route"
)

// group is a set of addresses with a policy. A route has one; with All it has one for each address, or for each of its Groups.
type group struct {
	name    string // for errors
	policy  route.Policy
	index   int // among the groups of its route
	hashKey string
	dynamic bool      // the Resolver can put another one in its place
	targets []*target // in the order of Route.Members
	turn    atomic.Uint64
	slots   *slots // of Hash

	identity session.Identity // of the streams that begin here: the addresses share it

	started atomic.Bool            // an address was ready once
	place   *atomic.Pointer[group] // has the group of the present route; shared by those that follow one another

	mu      sync.Mutex // guards the fields below
	current int        // of Failover; route.None: none yet
	owners  *owners    // of Hash; nil before the first call
}

// latest returns the group that is in g's place now.
func (g *group) latest() *group { return g.place.Load() }

// part is the messages of a call that go to one stream.
type part struct {
	target   *target
	slot     int // of Hash; -1: of none
	messages []*message.Message
	index    []int         // of the messages in the call; nil: they are all of it
	flow     *routedStream // nil with an outbox, and before attach
	slotFlow *slotFlow
}

// attach finds the streams of parts, which must be given back with detach. It returns false if one of the targets was given up.
func (p *Publisher) attach(g *group, parts []part) bool {
	for i := range parts {
		part := &parts[i]
		if !part.target.enter() {
			detach(parts[:i])
			return false
		}
		switch {
		case p.relay != nil:
		case part.slot >= 0:
			part.slotFlow = p.slotFlow(g, part.slot, part.target)
			part.flow = part.slotFlow.routedStream
		default:
			part.flow = p.flow(g, part.target)
		}
	}
	return true
}

// detach ends what attach began.
func detach(parts []part) {
	for _, part := range parts {
		part.target.end()
		if part.slotFlow != nil {
			part.slotFlow.calls.Add(-1)
		}
	}
}

// candidates appends what is known of a group's addresses.
func (g *group) candidates(into []route.Candidate, now time.Time) []route.Candidate {
	for _, t := range g.targets {
		c := route.Candidate{Member: t.Member, State: t.addr.state(), Slow: t.slow.Load()}
		if c.State == route.Ready {
			c.Stable = t.addr.stable(now)
			c.Full, c.Pending = g.load(t)
		} else {
			c.Fresh = t.addr.fresh(now)
		}
		into = append(into, c)
	}
	return into
}

// load says what of a target's window is taken, as far as the policy asks for it.
func (g *group) load(t *target) (full bool, pending int) {
	if g.policy == route.Failover {
		return false, 0
	}
	t.mu.Lock()
	f := t.main
	t.mu.Unlock()
	if f == nil {
		return false, 0
	}
	if s, ok := f.stream.(*sender.Stream); ok {
		full = !s.Room() || s.Moving()
		if g.policy != route.RoundRobin {
			pending = s.Unsettled()
		}
	}
	return full, pending
}

// errNoneReady is why a call that found no address has ended.
var errNoneReady = errors.New("no address of the route is ready")

// split chooses the address of each message. It waits until one is ready, or w ends. Where the messages can wait in a window or
// an outbox, or every address has refused this side, it waits no longer than a first attempt to connect may take, and then
// chooses as if all addresses were ready. The caller must call detach.
func (p *Publisher) split(w *callWait, g *group, messages []*message.Message) ([]part, error) {
	patient := p.relay == nil && p.cfg.Confirm != ConfirmEnqueued && !p.cfg.Ephemeral
	var space [8]route.Candidate
	for {
		g = g.latest()
		if parts := p.splitByTopic(g, messages); parts != nil && p.attach(g, parts) {
			return parts, nil
		}
		if len(g.targets) == 1 && !g.dynamic { // there is no choice, ever: the messages wait in its window
			if parts := []part{{target: g.targets[0], slot: -1, messages: messages}}; p.attach(g, parts) {
				return parts, nil
			}
			continue
		}
		changed := p.manager.changes.wait()
		now := time.Now()
		candidates := g.candidates(space[:0], now)
		fresh := g.freshUntil(now)
		if fresh.IsZero() && (!patient || g.refused()) && !anyReady(candidates) {
			for i := range candidates {
				candidates[i].State = route.Ready
			}
		}
		var parts []part
		if fresh.IsZero() || g.started.Load() || g.policy == route.Failover {
			parts = g.assign(candidates, messages)
		}
		switch {
		case parts == nil:
			if err := w.wait(changed, fresh); err != nil {
				return nil, resolving(err, g.explain())
			}
		case p.attach(g, parts):
			g.started.Store(true)
			return parts, nil
		}
	}
}

func anyReady(candidates []route.Candidate) bool {
	return slices.ContainsFunc(candidates, func(c route.Candidate) bool { return c.State == route.Ready })
}

// freshUntil is when the last address stops to be fresh, or zero.
func (g *group) freshUntil(now time.Time) (until time.Time) {
	for _, t := range g.targets {
		if t.addr.fresh(now) {
			if end := t.addr.made.Add(freshFor); end.After(until) {
				until = end
			}
		}
	}
	return until
}

// refused tells that no address will let this side in until a configuration changes.
func (g *group) refused() bool {
	for _, t := range g.targets {
		if _, definite := t.addr.sender.Unreachable(); !definite {
			return false
		}
	}
	return true
}

// explain says why no address is ready.
func (g *group) explain() error {
	var why strings.Builder
	const most = 3 // addresses that are named
	for i, t := range g.targets {
		if i == most {
			fmt.Fprintf(&why, "; and %d more", len(g.targets)-most)
			break
		}
		fmt.Fprintf(&why, "; %s is %v", t.peer, t.addr.state())
		if err, _ := t.addr.sender.Unreachable(); err != nil {
			fmt.Fprintf(&why, ": %v", err)
		}
	}
	return fmt.Errorf("%w%s", errNoneReady, why.String())
}

// assign chooses the address of each message, or returns nil if none is usable.
func (g *group) assign(candidates []route.Candidate, messages []*message.Message) []part {
	if g.policy == route.Failover {
		g.mu.Lock()
		g.current = route.PickFailover(g.current, candidates)
		current := g.current
		g.mu.Unlock()
		if current == route.None {
			return nil
		}
		return []part{{target: g.targets[current], slot: -1, messages: messages}}
	}
	var space [8]int
	usable := route.Usable(space[:0], candidates)
	switch {
	case len(usable) == 0:
		return nil
	case g.policy == route.Hash:
		return g.assignSlots(candidates, usable, messages)
	case len(messages) == 1:
		return []part{{target: g.targets[g.pick(candidates, usable)], slot: -1, messages: messages}}
	}
	parts := make([]part, len(candidates))
	for i, msg := range messages {
		parts[g.pick(candidates, usable)].add(i, msg)
	}
	return g.filled(parts)
}

func (p *part) add(i int, msg *message.Message) {
	p.messages, p.index = append(p.messages, msg), append(p.index, i)
}

// pick chooses the address of one message.
func (g *group) pick(candidates []route.Candidate, usable []int) int {
	if g.policy == route.RoundRobin {
		return route.PickRoundRobin(g.turn.Add(1)-1, candidates, usable)
	}
	at := route.PickLeastPending(rand.Uint64(), rand.Uint64(), candidates, usable)
	candidates[at].Pending++
	return at
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

// alternative is where a stream should be whose address takes nothing: nil if there is no better one.
func (f *routedStream) alternative() *sender.Sender {
	g := f.group.latest()
	candidates := g.candidates(nil, time.Now())
	usable := route.Usable(nil, candidates)
	if len(usable) == 0 {
		return nil
	}
	at := usable[0]
	switch g.policy {
	case route.Failover:
		g.mu.Lock()
		g.current = route.PickFailover(g.current, candidates)
		at = g.current
		g.mu.Unlock()
	case route.Hash:
		if owner, ok := g.ownerOf(f, candidates); ok {
			at = owner
			break
		}
		fallthrough
	default:
		at = route.PickLeastPending(rand.Uint64(), rand.Uint64(), candidates, usable)
	}
	if at == route.None {
		return nil
	}
	return g.targets[at].addr.sender
}
