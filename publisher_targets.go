package buffstreams

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/buffstreams/watermill-buffstreams/hooks"
	"github.com/buffstreams/watermill-buffstreams/internal/acked/sender"
	"github.com/buffstreams/watermill-buffstreams/internal/hook"
	"github.com/buffstreams/watermill-buffstreams/internal/netio"
	"github.com/buffstreams/watermill-buffstreams/internal/policy"
	"github.com/buffstreams/watermill-buffstreams/internal/session"
	"github.com/buffstreams/watermill-buffstreams/route"
)

// routedStream is a stream of a topic with the address at which it is. It holds a use of that address until it has
// ended.
type routedStream struct {
	stream stream
	name   string // of the topic on the wire
	group  *group // nil: the stream cannot move
	slot   int    // of Hash; -1: of none
	addr   atomic.Pointer[address]

	mu    sync.Mutex // guards ended, and changes of addr
	ended bool       // what it still holds is the Manager's: it can move, and has no use of any address

	ages policy.Ages // at the address aged; used by tick alone
	aged *address
}

func (f *routedStream) peer() string { return f.addr.Load().target.Address }

// target is one address of a topic's route. It holds a use of the address until leave.
type target struct {
	topic string
	name  string // of the topic on the wire
	peer  string // as errors name the address; with an outbox, as its entries do
	at    netio.Target
	addr  *address // nil on the plain wire, and with an outbox where there is no choice
	route.Member

	calls atomic.Int32 // of Publish that use it, or forgotten

	fixed *routedStream // of a target whose stream cannot move; nil: the fields below
	slow  atomic.Bool   // set aside
	rests time.Time     // until then it is set aside, as it did not take what was to be sent to it; used by tick alone

	main atomic.Pointer[routedStream] // takes new messages; nil before the first; changes with mu held

	mu     sync.Mutex      // guards the fields below
	others []*routedStream // that have moved away, and may hold messages
	left   bool            // no stream begins here any more
}

// flows returns all streams of the target.
func (t *target) flows() []*routedStream {
	if t.fixed != nil {
		return []*routedStream{t.fixed}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	all := slices.Clone(t.others)
	if main := t.main.Load(); main != nil {
		all = append(all, main)
	}
	return all
}

// unsettled is the number of messages that are not settled.
func (t *target) unsettled() (n int) {
	for _, f := range t.flows() {
		n += f.stream.Unsettled()
	}
	return n
}

// enter begins a use by a call, unless the target was given up.
func (t *target) enter() bool {
	if t.calls.Add(1) > 0 {
		return true
	}
	t.calls.Add(-1)
	return false
}

func (t *target) end() { t.calls.Add(-1) }

// giveUp makes the target take no more calls. It returns false if there is one, or messages are not settled.
func (t *target) giveUp() bool {
	if t.unsettled() > 0 || !t.calls.CompareAndSwap(0, forgotten) {
		return false
	}
	if t.unsettled() > 0 { // enqueued in between
		t.calls.Add(-forgotten)
		return false
	}
	return true
}

// age is how long the oldest unsettled message of a stream has been at its present address, as tick has seen it.
func (f *routedStream) age(now time.Time) time.Duration {
	s, ok := f.stream.(*sender.Stream)
	if !ok {
		return 0
	}
	if at := f.addr.Load(); at != f.aged {
		f.aged, f.ages = at, policy.Ages{}
	}
	head, tail := s.Progress()
	return f.ages.Note(head, tail, now)
}

// newTarget returns the target at an address. routed: its route has, or may get, other addresses, and streams can move
// to them.
func (p *Publisher) newTarget(topic string, d destination, m route.Member, routed bool) (*target, error) {
	if err := checkName(d.name); err != nil {
		return nil, err
	}
	t := &target{topic: topic, name: d.name, peer: d.target.Address, at: d.target, Member: m}
	if p.plain != nil {
		return t, p.plain.use(d.target)
	}
	if p.relay != nil {
		t.peer = formatAddress(d.target)
		if !routed {
			return t, p.manager.mayDial(d.target) // the relay dials when the outbox has something for it
		}
	}
	var err error
	if t.addr, err = p.manager.use(d.target); err != nil {
		return nil, err
	}
	switch {
	case p.relay == nil && !routed:
		name := d.name
		if p.cfg.Ephemeral {
			name = session.Ephemeral(name)
		}
		t.fixed = &routedStream{stream: t.addr.sender.Named(name), name: d.name, slot: -1}
		t.fixed.addr.Store(t.addr)
	case routed:
		t.addr.sender.ShortenSilence(routedPing, routedDead)
		t.addr.sender.Dial()
	}
	return t, nil
}

// flow returns the stream for new messages.
func (p *Publisher) flow(g *group, t *target) *routedStream {
	if t.fixed != nil {
		return t.fixed
	}
	if main := t.main.Load(); main.serves(g, t) {
		return main
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return p.flowLocked(g, t)
}

// flowLocked is flow with t.mu held.
func (p *Publisher) flowLocked(g *group, t *target) *routedStream {
	main := t.main.Load()
	switch {
	case main.serves(g, t): // another call was faster
		return main
	case main != nil: // it has moved, and ends there, or another group has the target now
		t.others = append(t.others, main)
	}
	main = p.newFlow(g, t, -1)
	t.main.Store(main)
	return main
}

// serves tells whether the stream takes what a group sends to a target.
func (f *routedStream) serves(g *group, t *target) bool {
	return f != nil && f.addr.Load() == t.addr && f.group.place == g.place
}

// newFlow makes a stream at a target, of a slot, or of none: -1.
func (p *Publisher) newFlow(g *group, t *target, slot int) *routedStream {
	f := &routedStream{name: t.name, group: g, slot: slot}
	f.addr.Store(t.addr)
	p.manager.reuse(t.addr)
	f.stream = t.addr.sender.NewStream(sender.StreamConfig{
		Identity: g.identity, Topic: t.name, Ephemeral: p.cfg.Ephemeral, Elsewhere: slot < 0 && !p.cfg.Ephemeral && !g.pinned,
		Alternative: func(*sender.Stream) *sender.Sender { return f.alternative() },
		Divide:      func(st *sender.Stream) { p.divide(f, st) },
		Moved:       func(m sender.Moved) { p.moved(f, m) },
	})
	return f
}

// moved notes that a stream is at another address, and tells the hooks.
func (p *Publisher) moved(f *routedStream, m sender.Moved) {
	to := p.manager.addressOf(m.To)
	if to == nil {
		return
	}
	from, unused := f.moveTo(to)
	m.From.Tell(func(set *hook.Set) {
		set.Moved(hooks.Moved{
			Topic: m.Topic, From: formatAddress(from.target), To: formatAddress(to.target), Messages: m.Messages,
			MayRepeat: m.Repeats, Tenure: m.Tenure,
		})
	})
	p.manager.release(unused)
}

// moveTo notes that the stream is at another address, a use of which the caller has. It returns where it was, and the
// address of which the caller must release a use.
func (f *routedStream) moveTo(to *address) (from, unused *address) {
	f.mu.Lock()
	defer f.mu.Unlock()
	from = f.addr.Swap(to)
	if f.ended {
		return from, to
	}
	return from, from
}

// endFlow ends a stream that is used no more.
func (p *Publisher) endFlow(f *routedStream) {
	if s, ok := f.stream.(*sender.Stream); ok {
		s.End()
	}
	p.manager.release(f.end())
}

// end notes that the stream has ended, and returns the address of which the caller must release a use.
func (f *routedStream) end() *address {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ended = true
	return f.addr.Load()
}

// moveAway moves streams from addresses that have left the route: from this one, or from where they have gone
// meanwhile.
func (t *target) moveAway() {
	for _, f := range t.flows() {
		s, ok := f.stream.(*sender.Stream)
		if !ok || f.group.latest().has(f.addr.Load()) {
			continue
		}
		if to := f.alternative(); to != nil {
			s.MoveTo(to)
		}
	}
}

// restFor is how long an address is set aside after it did not take what was to be sent to it.
const restFor = 2 * time.Second

// nothingSent tells whether the stream holds messages of which none was sent to its present address.
func (f *routedStream) nothingSent() bool {
	s, ok := f.stream.(*sender.Stream)
	return ok && s.NothingSent()
}

// free moves a stream of which nothing was sent to an address that is not set aside, if there is one: its own may
// answer nothing any more, or give no credit, as the topic has no subscriptions there.
func (f *routedStream) free(now time.Time) {
	candidates := f.group.latest().candidates(now)
	if usable := policy.Usable(nil, candidates); len(usable) == 0 || candidates[usable[0]].Slow {
		return
	}
	if s, ok := f.stream.(*sender.Stream); ok {
		if to := f.alternative(); to != nil {
			s.MoveTo(to)
		}
	}
}

// reap ends the streams that take no new messages and hold none. It returns false if there are no others of that kind.
func (p *Publisher) reap(t *target) (others bool) {
	if t.fixed != nil {
		return false
	}
	t.mu.Lock()
	if main := t.main.Load(); main != nil && main.addr.Load() != t.addr {
		t.others = append(t.others, main)
		t.main.Store(nil)
	}
	var ended []*routedStream
	t.others = slices.DeleteFunc(t.others, func(f *routedStream) bool {
		idle := f.stream.Unsettled() == 0
		if idle {
			ended = append(ended, f)
		}
		return idle
	})
	others = len(t.others) > 0
	t.mu.Unlock()
	for _, f := range ended {
		p.endFlow(f)
	}
	return others
}

// join has the refusals of a target's messages told to this Publisher. The caller must hold mu.
func (p *Publisher) joinLocked(t *target) {
	if t.addr == nil || p.relay != nil {
		return
	}
	s := t.addr.sender
	if p.senders[s]++; p.senders[s] == 1 && (p.cfg.OnFailure != nil || p.cfg.Ephemeral) {
		s.OnRefused(p, func(r session.Refused) bool { return p.onRefused(t.peer, r) })
	}
}

// leave gives targets up that take no new messages. mu must not be held.
func (p *Publisher) leave(targets []*target) {
	for _, t := range targets {
		if t.addr != nil {
			t.mu.Lock()
			t.left = true
			t.mu.Unlock()
			for _, f := range t.flows() {
				if f != t.fixed {
					p.endFlow(f)
				}
			}
			p.unjoin(t)
		}
		p.release(t)
	}
}

// release ends the use of a target's address, on either wire.
func (p *Publisher) release(t *target) {
	if p.plain != nil {
		p.plain.leave(t.at)
	}
	if t.addr != nil {
		p.manager.release(t.addr)
	}
}

func (p *Publisher) unjoin(t *target) {
	if p.relay != nil {
		return
	}
	s := t.addr.sender
	p.mu.Lock()
	last := p.senders[s] == 1
	if p.senders[s]--; last {
		delete(p.senders, s)
	}
	p.mu.Unlock()
	if last {
		s.OnRefused(p, nil)
	}
}
