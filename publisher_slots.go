package buffstreams

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/buffstreams/watermill-buffstreams/internal/acked/sender"
	"github.com/buffstreams/watermill-buffstreams/internal/policy"
	"github.com/buffstreams/watermill-buffstreams/route"
)

// slots has the streams of the slots of a topic with the policy Hash. Only slots whose messages are not all settled
// have one: its messages are in order wherever it goes. Groups that follow one another share it.
type slots struct {
	mu     sync.Mutex // guards the fields below
	flows  map[int]*slotFlow
	closed bool // no stream begins any more
}

// slotFlow is the stream of one slot.
type slotFlow struct {
	*routedStream
	calls atomic.Int32 // that use it; raised only with slots.mu held
}

// owners is which address each slot belongs to while certain addresses are there.
type owners struct {
	present string // a byte for each member: 1 if it is there
	of      [policy.Slots]int
}

// ownersOf returns the owners of the slots among the addresses that are ready, of the lowest priority that has one.
// nil: none is ready.
func (g *group) ownersOf(candidates []policy.Candidate) *owners {
	present, members, index := presentMembers(candidates)
	if len(members) == 0 {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.owners != nil && g.owners.present == present {
		return g.owners
	}
	o := &owners{present: present, of: policy.AssignSlots(members)}
	for slot := range o.of {
		o.of[slot] = index[o.of[slot]]
	}
	g.owners = o
	return o
}

// presentMembers returns the members that can own slots, and their indices.
func presentMembers(candidates []policy.Candidate) (present string, members []route.Member, index []int) {
	lowest, mask := 0, make([]byte, len(candidates))
	for _, c := range candidates {
		if c.State == policy.Ready && (len(members) == 0 || c.Priority < lowest) {
			lowest, members = c.Priority, append(members, c.Member)
		}
	}
	members = members[:0]
	for i, c := range candidates {
		if c.State == policy.Ready && c.Priority == lowest {
			mask[i] = 1
			members, index = append(members, c.Member), append(index, i)
		}
	}
	return string(mask), members, index
}

// assignSlots is assign for the policy Hash.
func (g *group) assignSlots(v *view, messages []*message.Message) []part {
	o := g.ownersOf(v.candidates)
	loads := g.newLoads()
	bySlot := map[int]int{} // index of the part
	var parts []part
	unkeyed := make([]part, len(g.targets))
	for i, msg := range messages {
		key := ""
		if msg != nil {
			key = msg.Metadata.Get(g.hashKey)
		}
		if key == "" {
			unkeyed[g.pick(v, loads)].add(i, msg)
			continue
		}
		slot := policy.Slot(key)
		at, ok := bySlot[slot]
		if !ok {
			at = len(parts)
			bySlot[slot] = at
			parts = append(parts, part{target: g.targets[o.of[slot]], slot: slot})
		}
		parts[at].add(i, msg)
	}
	return append(parts, g.filled(unkeyed)...)
}

// slotFlow returns the stream of a slot, and makes it at its owner where there is none; nil if the group was given up.
// The caller must lower its calls.
func (p *Publisher) slotFlow(g *group, slot int, owner *target) *slotFlow {
	g.slots.mu.Lock()
	defer g.slots.mu.Unlock()
	if g.slots.closed {
		return nil
	}
	f := g.slots.flows[slot]
	if f == nil {
		f = &slotFlow{routedStream: p.newFlow(g, owner, slot)}
		if g.slots.flows == nil {
			g.slots.flows = map[int]*slotFlow{}
		}
		g.slots.flows[slot] = f
	}
	f.calls.Add(1)
	return f
}

// close has no stream begin any more, if there is none.
func (s *slots) close() bool {
	if s == nil {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = s.closed || len(s.flows) == 0
	return s.closed
}

// len is the number of streams.
func (s *slots) len() int {
	if s == nil {
		return 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.flows)
}

// all returns the streams of the slots.
func (s *slots) all() []*routedStream {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]*routedStream, 0, len(s.flows))
	for _, f := range s.flows {
		all = append(all, f.routedStream)
	}
	return all
}

// tickSlots ends the streams of slots that hold nothing, and moves those whose slot belongs to another address.
func (p *Publisher) tickSlots(g *group, now time.Time) {
	if g.slots.len() == 0 {
		return
	}
	g.slots.mu.Lock()
	var ended []*routedStream
	maps.DeleteFunc(g.slots.flows, func(_ int, f *slotFlow) bool {
		idle := f.calls.Load() == 0 && f.stream.Unsettled() == 0
		if idle {
			ended = append(ended, f.routedStream)
		}
		return idle
	})
	rest := slices.Collect(maps.Values(g.slots.flows))
	g.slots.mu.Unlock()
	for _, f := range ended {
		p.endFlow(f)
	}
	if g = g.latest(); g.policy != route.Hash { // it was before
		return
	}
	o := g.ownersOf(g.candidates(now))
	if o == nil {
		return
	}
	for _, f := range rest {
		owner := g.targets[o.of[f.slot]].addr
		if s, ok := f.stream.(*sender.Stream); ok && f.addr.Load() != owner && f.mayMoveTo(owner) {
			s.MoveTo(owner.sender)
		}
	}
}

// ownerOf returns the address that the slot of a stream belongs to; ok is false if the stream is none of a slot.
func (g *group) ownerOf(f *routedStream, candidates []policy.Candidate) (at int, ok bool) {
	if f.slot < 0 {
		return 0, false
	}
	o := g.ownersOf(candidates)
	if o == nil {
		return 0, false
	}
	return o.of[f.slot], true
}
