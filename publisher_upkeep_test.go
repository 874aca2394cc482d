package buffstreams

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/policy"
	"github.com/buffstreams/watermill-buffstreams/route"
)

// What a tick does for a topic that has a route, looked at without the network: every address is away.

// awayGroup returns a group whose addresses are away, with a use of each for the group, and none for a stream.
func awayGroup(t *testing.T, p *Publisher, chosen route.Policy, addresses ...string) *group {
	t.Helper()
	g := &group{
		policy: chosen, current: policy.None, place: new(atomic.Pointer[group]), identity: newIdentity(), slots: &slots{},
	}
	g.place.Store(g)
	for _, a := range addresses {
		m := route.Member{Address: a, Attributes: route.Attributes{Weight: 1}}
		one, err := p.newTarget("orders", destination{tcp(a), "orders"}, m, true)
		require.NoError(t, err)
		p.mu.Lock()
		p.joinLocked(one)
		p.mu.Unlock()
		g.targets = append(g.targets, one)
	}
	return g
}

// enqueue leaves a message with a stream.
func enqueue(t *testing.T, p *Publisher, at *target, f *routedStream) {
	t.Helper()
	_, _, err := p.send(t.Context(), at, f, keyed("a"), time.Minute)
	require.NoError(t, err)
	require.Equal(t, 1, f.stream.Unsettled())
}

func (m *Manager) usesOf(address string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.addresses[tcp(address).Canonical()].uses
}

// TestTick_SetsASlowAddressAside, and takes it back when it has caught up.
func TestTick_SetsASlowAddressAside(t *testing.T) {
	p := newTestPublisher(t, EnvelopeMarshaler{})
	defer func() { _ = p.Close() }()
	g := awayGroup(t, p, route.RoundRobin, "127.0.0.1:1", "127.0.0.1:2")
	slow := func(at time.Time) (all []bool) {
		g.tickSlow(at)
		for _, one := range g.targets {
			all = append(all, one.slow.Load())
		}
		return all
	}
	first, second := g.targets[0], g.targets[1]
	enqueue(t, p, first, p.flow(g, first))
	now := time.Now()
	require.Equal(t, []bool{false, false}, slow(now))
	require.Equal(t, []bool{true, false}, slow(now.Add(policy.SlowAfter)))
	enqueue(t, p, second, p.flow(g, second))
	require.Equal(t, []bool{true, false}, slow(now.Add(2*policy.SlowAfter)))
	require.Equal(t, []bool{false, false}, slow(now.Add(3*policy.SlowAfter)), "the other one is slow too")
}

// TestTick_EndsTheStreamOfASlotThatHoldsNothing, so that its address can go.
func TestTick_EndsTheStreamOfASlotThatHoldsNothing(t *testing.T) {
	p := newTestPublisher(t, EnvelopeMarshaler{})
	defer func() { _ = p.Close() }()
	const address = "127.0.0.1:1"
	g := awayGroup(t, p, route.Hash, address)
	for slot, holds := range []bool{false, true} {
		f := p.slotFlow(g, slot, g.targets[0])
		if holds {
			enqueue(t, p, g.targets[0], f.routedStream)
		}
		f.calls.Add(-1)
	}
	require.Equal(t, 3, p.manager.usesOf(address))
	p.tickSlots(g, time.Now())
	require.Equal(t, 2, p.manager.usesOf(address))
	require.Equal(t, 1, g.slots.len())
}

// TestTick_ForgetsAnAddressThatLeft when it holds nothing, and none that does.
func TestTick_ForgetsAnAddressThatLeft(t *testing.T) {
	p := newTestPublisher(t, EnvelopeMarshaler{})
	defer func() { _ = p.Close() }()
	s := p.state("orders")
	next, g := awayGroup(t, p, route.RoundRobin), awayGroup(t, p, route.RoundRobin, "127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3")
	g.place.Store(next)
	holder := g.targets[1]
	enqueue(t, p, holder, p.flow(g, holder))
	s.former = g.targets
	p.tickFormer(s)
	require.Equal(t, []*target{holder}, s.former)
	require.Equal(t, 0, p.manager.usesOf("127.0.0.1:1"))
	require.Equal(t, 2, p.manager.usesOf(formatAddress(holder.at)), "one for the target, one for the stream")
	require.Equal(t, 0, p.manager.usesOf("127.0.0.1:3"))
}

// TestRoute_AGroupThatLeftLeadsToTheOneThatHasItsAddresses; it takes no calls where there is none, or where each address gets every
// message itself.
func TestRoute_AGroupThatLeftLeadsToTheOneThatHasItsAddresses(t *testing.T) {
	p := newTestPublisher(t, EnvelopeMarshaler{})
	defer func() { _ = p.Close() }()
	member := func(addresses ...string) *group {
		g, _, err := p.newGroup("orders", route.Route{Addresses: addresses, Policy: route.RoundRobin}, true, nil)
		require.NoError(t, err)
		g.place.Store(g)
		return g
	}
	for name, c := range map[string]struct {
		pinned bool
		at     string
		led    bool
	}{
		"to its heir": {false, "127.0.0.1:2", true}, "pinned": {true, "127.0.0.1:2", false}, "no heir": {false, "127.0.0.1:3", false},
	} {
		followed, old, next := member("127.0.0.1:1"), member(c.at), member("127.0.0.1:1", "127.0.0.1:2")
		old.pinned = c.pinned
		next.follow(followed)
		next.place.Store(next)
		s := &topicState{}
		s.retireLocked(&resolved{groups: []*group{followed, old}}, &resolved{groups: []*group{next}})
		require.Equal(t, []*group{old}, s.retired, name)
		require.Equal(t, c.led, old.latest() == next, name)
		require.Equal(t, c.led, !old.left(), name)
		require.False(t, followed.left(), name)
	}
}

// stubStream has as many unsettled messages as it is told, one number for each look.
type stubStream struct {
	stream
	unsettled []int
}

func (s *stubStream) Unsettled() (n int) {
	n, s.unsettled = s.unsettled[0], s.unsettled[1:]
	return n
}

// TestTarget_IsNotGivenUpWithAMessage, also one that is enqueued in the last moment: calls find it as before.
func TestTarget_IsNotGivenUpWithAMessage(t *testing.T) {
	for _, unsettled := range [][]int{{1}, {0, 1}} {
		one := &target{fixed: &routedStream{stream: &stubStream{unsettled: unsettled}}}
		require.False(t, one.giveUp())
		require.True(t, one.enter())
	}
	called := &target{fixed: &routedStream{stream: &stubStream{unsettled: []int{0}}}}
	require.True(t, called.enter())
	require.False(t, called.giveUp())
	one := &target{fixed: &routedStream{stream: &stubStream{unsettled: []int{0, 0}}}}
	require.True(t, one.giveUp())
	require.False(t, one.enter())
	require.EqualValues(t, forgotten, one.calls.Load())
}

// TestRoute_ThatIsNotAdoptedLeavesNothing: one with an address that is none, and one that another call was faster with.
func TestRoute_ThatIsNotAdoptedLeavesNothing(t *testing.T) {
	p := newTestPublisher(t, EnvelopeMarshaler{})
	defer func() { _ = p.Close() }()
	const first, second = "127.0.0.1:1", "127.0.0.1:2"
	other := awayGroup(t, p, route.RoundRobin, first).targets[0].addr // of another topic
	require.ErrorIs(t, p.change(p.state("bad"), route.Route{Addresses: []string{first, "nowhere"}}), ErrBadTopic)
	require.Equal(t, 1, p.manager.usesOf(first))
	require.Equal(t, 1, p.senders[other.sender], "OnFailure still hears what the address refuses of the other topic")

	s := p.state("orders")
	for _, want := range []int{1, 1} {
		g := &group{place: new(atomic.Pointer[group])}
		one, err := p.newTarget("orders", destination{tcp(second), "orders"}, route.Member{Address: second}, false)
		require.NoError(t, err)
		g.targets = []*target{one}
		p.adopt(s, &resolved{groups: []*group{g}, targets: g.targets})
		require.Equal(t, want, p.manager.usesOf(second))
	}
}

// TestSlots_OfAGroupThatWasGivenUpTakeNoCall, and a call that comes so leaves no trace.
func TestSlots_OfAGroupThatWasGivenUpTakeNoCall(t *testing.T) {
	p := newTestPublisher(t, EnvelopeMarshaler{})
	defer func() { _ = p.Close() }()
	g := awayGroup(t, p, route.Hash, "127.0.0.1:1")
	require.True(t, g.slots.close())
	require.False(t, p.attach(g, &part{target: g.targets[0], slot: 3}))
	require.Zero(t, g.targets[0].calls.Load())
	require.Equal(t, 1, p.manager.usesOf("127.0.0.1:1"))
}

// Every group of a route has the route's name on the wire, whichever way it is a group.
func TestRoute_GroupsHaveItsName(t *testing.T) {
	addresses := []string{"127.0.0.1:1", "127.0.0.1:2"}
	for _, r := range []route.Route{
		{Addresses: addresses, Name: "n"}, {Addresses: addresses, Name: "n", Policy: route.All},
		{Name: "n", Policy: route.All, Groups: []route.Route{{Addresses: addresses[:1]}, {Addresses: addresses[1:]}}},
	} {
		all := groupsOf(r)
		require.NotEmpty(t, all)
		for _, g := range all {
			require.Equal(t, "n", g.Name)
		}
	}
}
