package buffstreams

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/acked/sender"
	"github.com/buffstreams/watermill-buffstreams/internal/netio"
	"github.com/buffstreams/watermill-buffstreams/internal/policy"
	"github.com/buffstreams/watermill-buffstreams/route"
)

// pickers returns a group of ready addresses, and what is known of them.
func pickers(chosen route.Policy, n int) (*group, *view) {
	g, v := &group{policy: chosen}, &view{}
	for i := range n {
		g.targets = append(g.targets, &target{})
		v.candidates = append(v.candidates, policy.Candidate{
			Member: route.Member{Attributes: route.Attributes{Weight: 1}}, State: policy.Ready,
		})
		v.usable = append(v.usable, i)
	}
	return g, v
}

// picks are the addresses of so many calls one after the other, while calls are under way.
func picks(g *group, v *view, n, calls int) (all []int) {
	for range n {
		all = append(all, g.assignAll(v, 1, calls))
	}
	return all
}

// TestRoundRobin_AFewCallsTakeTurns: with less than 32 calls for each address, every call has its own turn.
func TestRoundRobin_AFewCallsTakeTurns(t *testing.T) {
	g, v := pickers(route.RoundRobin, 3)
	require.Equal(t, []int{0, 1, 2, 0, 1, 2, 0}, picks(g, v, 7, 3*together-1))
}

// TestRoundRobin_ManyCallsGoTogether: they share a turn, and the addresses get the same all the same, also where the number of
// calls changes in the middle of a turn.
func TestRoundRobin_ManyCallsGoTogether(t *testing.T) {
	g, v := pickers(route.RoundRobin, 3)
	all := picks(g, v, 2*together, 3*together)
	for i, at := range all {
		require.Equal(t, i/together, at)
	}
	counts := make([]int, 3)
	const total = 60_000
	for n := 0; n < total; {
		calls := 3*together - rand.IntN(2)
		k := min(1+rand.IntN(1000), total-n)
		for _, at := range picks(g, v, k, calls) {
			counts[at]++
		}
		n += k
	}
	for _, n := range counts {
		require.InDelta(t, total/3, n, total/3*0.05, "%v", counts) // 120 changes at most, each of half a turn
	}
}

// TestLeastPending_ManyCallsGoTogether: they go where the first of them went, for one turn, and no longer than nothing changes.
func TestLeastPending_ManyCallsGoTogether(t *testing.T) {
	g, v := pickers(route.LeastPending, 3)
	turns := map[int]bool{}
	for range 50 {
		turn := picks(g, v, together, 3*together)
		for _, at := range turn {
			require.Equal(t, turn[0], at)
		}
		turns[turn[0]] = true
	}
	require.Len(t, turns, 3, "the next turn chooses anew")
	g.choice.Store(&choice{view: v, turn: g.turn.Load() / together, at: 2})
	v = &view{candidates: v.candidates, usable: []int{0, 1}} // one is gone
	require.NotContains(t, picks(g, v, together, 3*together), 2)
	seen := map[int]bool{}
	for _, at := range picks(g, v, 200, 1) {
		seen[at] = true
	}
	require.Len(t, seen, 2)
}

// TestLeastPending_AFullAddressEndsATurn: the calls that follow go where there is room.
func TestLeastPending_AFullAddressEndsATurn(t *testing.T) {
	m, _, l := newPair(t, AckedConfig{WindowMessages: 4})
	c := newConsumer(l, "orders") // takes nothing
	defer c.Leave()
	p, err := NewPublisher(PublisherConfig{
		Manager: m, Confirm: ConfirmEnqueued, CloseTimeout: time.Millisecond,
		Resolver: route.Static{"orders": {Addresses: []string{l.Addr().String(), "127.0.0.1:1"}}},
	}, nil)
	require.NoError(t, err)
	defer func() { _ = p.Close() }()
	require.NoError(t, p.Publish("orders", keyed("a", "b", "c")...))
	g, v := pickers(route.LeastPending, 2)
	g.targets[1] = p.topics["orders"].resolved.Load().targets[0]
	require.Equal(t, policy.Load{Pending: 3}, g.load(1))
	require.NoError(t, p.Publish("orders", keyed("d")...))
	require.True(t, g.load(1).Full, "its window has no room for another")
	require.True(t, g.newLoads().of(1).Full, "also as a call with several messages sees it")
	g.choice.Store(&choice{view: v, turn: g.turn.Load() / together, at: 1})
	require.NotContains(t, picks(g, v, together, 3*together), 1)
}

// TestDivide_LeavesTargetsAsTheyWere: calls find them, but for one that was given up, and nothing begins where it must not go.
func TestDivide_LeavesTargetsAsTheyWere(t *testing.T) {
	m, s, _ := newPair(t, AckedConfig{})
	p, err := NewPublisher(PublisherConfig{Manager: m, Confirm: ConfirmEnqueued, CloseTimeout: time.Millisecond}, nil)
	require.NoError(t, err)
	defer func() { _ = p.Close() }()
	a := m.addressOf(s)
	s.Dial()
	require.Eventually(t, func() bool { return a.state() == policy.Ready }, 30*time.Second, time.Millisecond)
	g := awayGroup(t, p, route.RoundRobin)
	gone, left, alive := &target{addr: a, name: "orders"}, &target{addr: a, name: "orders", left: true}, &target{addr: a, name: "orders"}
	g.targets = []*target{gone, left, alive}
	gone.calls.Store(forgotten)
	for _, secure := range []bool{true, false} {
		f := &routedStream{group: g, slot: -1}
		f.addr.Store(&address{target: netio.Target{Network: "tcp", TLS: secure}})
		p.divide(f, s.NewStream(sender.StreamConfig{Identity: newIdentity(), Topic: "orders"}))
		require.Zero(t, alive.calls.Load())
		require.Zero(t, left.calls.Load())
		require.EqualValues(t, forgotten, gone.calls.Load())
		require.Equal(t, secure, alive.main.Load() == nil, "a stream begins")
		require.Nil(t, gone.main.Load())
	}
}

// TestHash_ASlotOfTLSStays where it is though its slot belongs to an address without.
func TestHash_ASlotOfTLSStays(t *testing.T) {
	m, s, _ := newPair(t, AckedConfig{})
	p, err := NewPublisher(PublisherConfig{Manager: m, Confirm: ConfirmEnqueued, CloseTimeout: time.Millisecond}, nil)
	require.NoError(t, err)
	defer func() { _ = p.Close() }()
	a := m.addressOf(s)
	s.Dial()
	require.Eventually(t, func() bool { return a.state() == policy.Ready }, 30*time.Second, time.Millisecond)
	g := awayGroup(t, p, route.Hash)
	g.targets = []*target{{addr: a, name: "orders", Member: route.Member{Attributes: route.Attributes{Weight: 1}}}}
	for _, secure := range []bool{true, false} {
		st := senderTo(t, m, tcp("127.0.0.1:1")).NewStream(sender.StreamConfig{Identity: newIdentity(), Topic: "orders"})
		f := &slotFlow{routedStream: &routedStream{stream: st, group: g, slot: 3}}
		f.addr.Store(&address{target: netio.Target{Network: "tcp", Address: "127.0.0.1:1", TLS: secure}})
		f.calls.Add(1)
		g.slots.flows = map[int]*slotFlow{3: f}
		p.tickSlots(g, time.Now())
		require.Equal(t, secure, st.Sender() != s, "it has not moved")
	}
	g.slots.flows = nil
}
