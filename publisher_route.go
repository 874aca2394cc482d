package buffstreams

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/buffstreams/watermill-buffstreams/internal/policy"
	"github.com/buffstreams/watermill-buffstreams/internal/session"
	"github.com/buffstreams/watermill-buffstreams/route"
)

// group is a set of addresses with a policy. A route has one; with All it has one for each address, or for each of its
// Groups.
type group struct {
	policy  route.Policy
	index   int // among the groups of its route
	hashKey string
	dynamic bool          // the Resolver can put another one in its place
	pinned  bool          // its only address gets every message itself: nothing moves from there
	targets []*target     // in the order of Route.Members
	turn    atomic.Uint64 // of the next call, and its place in that: see nextTurn
	choice  atomic.Pointer[choice]
	slots   *slots // of Hash

	member context.Context // ends when the group has left the route, and takes no calls; nil: it never leaves it
	leave  context.CancelFunc

	groupsSaid *groupsSaid // shared by those that follow one another

	identity session.Identity // of the streams that begin here: the addresses share it

	started atomic.Bool            // an address was ready once
	place   *atomic.Pointer[group] // has the group of the present route; shared by those that follow one another

	known atomic.Pointer[view]

	mu      sync.Mutex // guards the fields below
	current int        // of Failover; policy.None: none yet
	owners  *owners    // of Hash; nil before the first call
}

// groupsSaid is what was logged last of the addresses' consumer groups.
type groupsSaid struct {
	mu     sync.Mutex // guards differ
	differ []string   // each address with its digest; nil: they are the same
}

// groupsDiffer tells whether they have different ones, as was seen last.
func (g *group) groupsDiffer() bool {
	if g.groupsSaid == nil {
		return false
	}
	g.groupsSaid.mu.Lock()
	defer g.groupsSaid.mu.Unlock()
	return g.groupsSaid.differ != nil
}

// latest returns the group that is in g's place now.
func (g *group) latest() *group { return g.place.Load() }

// left tells whether the group is in the route no longer, and no other has its addresses.
func (g *group) left() bool { return g.member != nil && g.member.Err() != nil }

// part is the messages of a call that go to one stream.
type part struct {
	target   *target
	slot     int // of Hash; -1: of none
	messages []*message.Message
	index    []int         // of the messages in the call; nil: they are all of it
	flow     *routedStream // nil with an outbox, and before attach
	slotFlow *slotFlow
}

// attachAll is attach for what split returns.
func (p *Publisher) attachAll(g *group, one *part, more []part) bool {
	if one.target != nil {
		return p.attach(g, one)
	}
	for i := range more {
		if !p.attach(g, &more[i]) {
			for k := range more[:i] {
				more[k].detach()
			}
			return false
		}
	}
	return true
}

// attach finds the stream of a part, which must be given back with detach. It returns false if the target was given up.
func (p *Publisher) attach(g *group, part *part) bool {
	if !part.target.enter() {
		return false
	}
	switch {
	case p.relay != nil:
	case part.slot >= 0:
		if part.slotFlow = p.slotFlow(g, part.slot, part.target); part.slotFlow == nil {
			part.target.end()
			return false
		}
		part.flow = part.slotFlow.routedStream
	default:
		part.flow = p.flow(g, part.target)
	}
	return true
}

// detach ends what attach began.
func (p *part) detach() {
	p.target.end()
	if p.slotFlow != nil {
		p.slotFlow.calls.Add(-1)
	}
}

// errNoneReady is why a call that found no address has ended.
var errNoneReady = errors.New("no address of the route is ready")

// errLeftRoute is why a call ended that was to send to a group of addresses when the Resolver left it out.
var errLeftRoute = errors.New("buffstreams: these addresses are in the topic's route no longer")

// split chooses the address of each message. It waits until one is ready, or w ends. Where the messages can wait in a
// window or an outbox, or every address has refused this side, it waits no longer than a first attempt to connect may
// take, and then chooses as if all addresses were ready. It returns one part, or several in more. The caller must call
// detach.
func (p *Publisher) split(w *callWait, g *group, messages []*message.Message) (one part, more []part, err error) {
	for {
		if g = g.latest(); g.left() {
			return one, nil, errLeftRoute
		}
		if byTopic := p.splitByTopic(g, messages); byTopic != nil {
			if p.attachAll(g, &one, byTopic) {
				return one, byTopic, nil
			}
			continue
		}
		if len(g.targets) == 1 && !g.dynamic { // there is no choice, ever: the messages wait in its window
			one = part{target: g.targets[0], slot: -1, messages: messages}
			if p.attach(g, &one) {
				return one, nil, nil
			}
			continue
		}
		v := p.view(g)
		if !g.started.Load() {
			if v, err = p.awaitStart(w, g); err != nil {
				return one, nil, err
			}
		}
		if one, more = g.assign(v, messages); one.target == nil && more == nil {
			if v, err = p.awaitReady(w, g, v); err != nil {
				return one, nil, err
			}
			if v == nil {
				continue
			}
			if one, more = g.assign(v, messages); one.target == nil && more == nil {
				continue
			}
		}
		if p.attachAll(g, &one, more) {
			g.started.Store(true)
			return one, more, nil
		}
	}
}

// awaitStart waits until the first attempts to connect had their time, or all addresses are ready: else whatever is
// connected first would get all of the first messages. Failover knows itself when to wait.
func (p *Publisher) awaitStart(w *callWait, g *group) (*view, error) {
	for {
		changed := p.manager.changes.wait()
		now := time.Now()
		fresh := g.freshUntil(now)
		if fresh.IsZero() || g.policy == route.Failover {
			return p.view(g), nil
		}
		if err := w.wait(changed, fresh, g.explain); err != nil {
			return nil, resolving(err, g.explain())
		}
	}
}

// awaitReady waits for a change, as no address is usable. It returns a view in which all addresses are ready if the
// call should wait no longer for one.
func (p *Publisher) awaitReady(w *callWait, g *group, v *view) (*view, error) {
	changed := p.manager.changes.wait()
	if p.manager.changes.count.Load() != v.changes {
		return nil, nil
	}
	fresh := g.freshUntil(time.Now())
	patient := p.relay == nil && p.cfg.Confirm != ConfirmEnqueued && !p.cfg.Ephemeral
	if fresh.IsZero() && (!patient || g.refused()) && !anyReady(v.candidates) {
		all := &view{candidates: slices.Clone(v.candidates)}
		for i := range all.candidates {
			all.candidates[i].State = policy.Ready
		}
		all.usable = policy.Usable(nil, all.candidates)
		return all, nil
	}
	if err := w.wait(changed, fresh, g.explain); err != nil {
		return nil, resolving(err, g.explain())
	}
	g.known.Store(nil) // time counts too
	return nil, nil
}

func anyReady(candidates []policy.Candidate) bool {
	return slices.ContainsFunc(candidates, func(c policy.Candidate) bool { return c.State == policy.Ready })
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
