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
	policy  route.Policy
	index   int // among the groups of its route
	hashKey string
	dynamic bool          // the Resolver can put another one in its place
	pinned  bool          // its only address gets every message itself: nothing moves from there
	gone    atomic.Bool   // it left the route, and takes no calls
	targets []*target     // in the order of Route.Members
	turn    atomic.Uint64 // of the next call, and its place in that: see nextTurn
	choice  atomic.Pointer[choice]
	slots   *slots // of Hash

	groupsSaid *groupsSaid // shared by those that follow one another

	identity session.Identity // of the streams that begin here: the addresses share it

	started atomic.Bool            // an address was ready once
	place   *atomic.Pointer[group] // has the group of the present route; shared by those that follow one another

	known atomic.Pointer[view]

	mu      sync.Mutex // guards the fields below
	current int        // of Failover; route.None: none yet
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

// together is how many calls of one message in a row go to the same address while there are many at a time, at least as many for
// each usable address: they, the acks, and the calls that follow these then share a write. Each address still has enough to do.
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

// view is what is known of a group's addresses, but for their load.
type view struct {
	changes    uint64 // that had happened
	candidates []route.Candidate
	usable     []int
}

// view returns what is known of the group's addresses now. It is made anew after each change, and each tick.
func (p *Publisher) view(g *group) *view {
	changes := p.manager.changes.count.Load()
	if v := g.known.Load(); v != nil && v.changes == changes {
		return v
	}
	v := &view{changes: changes, candidates: g.candidates(time.Now())}
	v.usable = route.Usable(nil, v.candidates)
	g.known.Store(v)
	return v
}

// candidates returns what is known of the group's addresses.
func (g *group) candidates(now time.Time) []route.Candidate {
	all := make([]route.Candidate, len(g.targets))
	for i, t := range g.targets {
		all[i] = route.Candidate{
			Member: t.Member, State: t.addr.state(), Fresh: t.addr.fresh(now), Stable: t.addr.stable(now), Slow: t.slow.Load(),
		}
	}
	return all
}

// load says what a target has to do.
func (g *group) load(i int) (l route.Load) {
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

// loads is the load of a group's addresses as one call sees it: it asks once, and adds what it sends itself.
type loads struct {
	group *group
	calls int // of one message each that are under way
	known []bool
	loads []route.Load
}

func (l *loads) of(i int) route.Load {
	if l.known == nil { // a call with one message
		return l.group.load(i)
	}
	if !l.known[i] {
		l.known[i], l.loads[i] = true, l.group.load(i)
	}
	return l.loads[i]
}

func (l *loads) add(i int) {
	if l.known != nil {
		l.of(i)
		l.loads[i].Pending++
	}
}

// errNoneReady is why a call that found no address has ended.
var errNoneReady = errors.New("no address of the route is ready")

// errLeftRoute is why a call ended that was to send to a group of addresses when the Resolver left it out.
var errLeftRoute = errors.New("buffstreams: these addresses are in the topic's route no longer")

// split chooses the address of each message. It waits until one is ready, or w ends. Where the messages can wait in a window or
// an outbox, or every address has refused this side, it waits no longer than a first attempt to connect may take, and then
// chooses as if all addresses were ready. It returns one part, or several in more. The caller must call detach.
func (p *Publisher) split(w *callWait, g *group, messages []*message.Message) (one part, more []part, err error) {
	for {
		if g = g.latest(); g.gone.Load() {
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
		one, more = g.assign(v, messages)
		switch {
		case one.target == nil && more == nil:
			if v, err = p.awaitReady(w, g, v); err != nil {
				return one, nil, err
			}
			if v == nil {
				continue
			}
			if one, more = g.assign(v, messages); one.target == nil && more == nil {
				continue
			}
			fallthrough
		default:
			if p.attachAll(g, &one, more) {
				g.started.Store(true)
				return one, more, nil
			}
		}
	}
}

// awaitStart waits until the first attempts to connect had their time, or all addresses are ready: else whatever is connected
// first would get all of the first messages. Failover knows itself when to wait.
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

// awaitReady waits for a change, as no address is usable. It returns a view in which all addresses are ready if the call should
// wait no longer for one.
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
			all.candidates[i].State = route.Ready
		}
		all.usable = route.Usable(nil, all.candidates)
		return all, nil
	}
	if err := w.wait(changed, fresh, g.explain); err != nil {
		return nil, resolving(err, g.explain())
	}
	g.known.Store(nil) // time counts too
	return nil, nil
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

// assign chooses the address of each message: of all of them in one, or of each in more. Both are empty if none is usable.
func (g *group) assign(v *view, messages []*message.Message) (one part, more []part) {
	at := g.assignAll(v, len(messages), 0)
	switch {
	case at != route.None:
		return part{target: g.targets[at], slot: -1, messages: messages}, nil
	case g.policy == route.Failover || len(v.usable) == 0:
		return one, nil
	case g.policy == route.Hash:
		return one, g.assignSlots(v, messages)
	}
	loads := loads{group: g, known: make([]bool, len(g.targets)), loads: make([]route.Load, len(g.targets))}
	parts := make([]part, len(g.targets))
	for i, msg := range messages {
		parts[g.pick(v, &loads)].add(i, msg)
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
		return route.PickRoundRobin(turn, v.candidates, v.usable, l.of)
	}
	if c := g.choice.Load(); shared && c != nil && c.view == v && c.turn == turn && !g.load(c.at).Full {
		return c.at
	}
	at := route.PickLeastPending(rand.Uint64(), rand.Uint64(), v.candidates, v.usable, l.of) //nolint:gosec // spreads load
	l.add(at)
	if shared {
		g.choice.Store(&choice{v, turn, at})
	}
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
	candidates := g.candidates(time.Now())
	usable := route.Usable(nil, candidates)
	if len(usable) == 0 {
		return nil
	}
	var at int
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
		at = route.PickLeastPending(rand.Uint64(), rand.Uint64(), candidates, usable, g.load) //nolint:gosec // spreads load
	}
	if at == route.None || !f.mayMoveTo(g.targets[at].addr) {
		return nil
	}
	return g.targets[at].addr.sender
}

// mayMoveTo tells whether what a stream holds may go to another address: never from TLS to where others could read it.
func (f *routedStream) mayMoveTo(to *address) bool {
	return !f.addr.Load().target.TLS || to.target.TLS || to.target.Network == "unix"
}
