package buffstreams

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/acked/acktest"
	"github.com/buffstreams/watermill-buffstreams/internal/acked/sender"
	"github.com/buffstreams/watermill-buffstreams/internal/policy"
	"github.com/buffstreams/watermill-buffstreams/internal/session"
	"github.com/buffstreams/watermill-buffstreams/route"
)

// readyGroup returns a group of so many addresses that are ready, each with a higher priority than the next, and a stream of the group
// at an address that is away.
func readyGroup(t *testing.T, chosen route.Policy, n int) (*group, *routedStream) {
	m := newTestManager(t, ManagerConfig{})
	p, err := NewPublisher(PublisherConfig{Manager: m, CloseTimeout: time.Millisecond}, nil)
	require.NoError(t, err)
	t.Cleanup(func() { _ = p.Close() })
	g := awayGroup(t, p, chosen)
	for i := range n {
		l, err := newTestManager(t, ManagerConfig{}).listen(anyPort)
		require.NoError(t, err)
		s := senderTo(t, m, tcp(l.Addr().String()))
		s.Dial()
		a := m.addressOf(s)
		require.Eventually(t, func() bool { return a.state() == policy.Ready }, 30*time.Second, time.Millisecond)
		member := route.Member{Address: a.target.Address, Attributes: route.Attributes{Weight: 1}}
		if chosen == route.Failover {
			member.Priority = n - i
		}
		g.targets = append(g.targets, &target{addr: a, name: "orders", Member: member})
	}
	st := senderTo(t, m, tcp("127.0.0.1:1")).NewStream(sender.StreamConfig{Identity: newIdentity(), Topic: "orders"})
	f := &routedStream{stream: st, group: g, slot: -1}
	f.addr.Store(&address{target: tcp("127.0.0.1:1")})
	return g, f
}

// TestRoutedStream_GoesWhereItsPolicySays, if its address takes nothing.
func TestRoutedStream_GoesWhereItsPolicySays(t *testing.T) {
	const slot = 5
	for chosen, slots := range map[route.Policy][]int{
		route.Failover: {-1}, route.RoundRobin: {-1}, route.LeastPending: {-1}, route.Hash: {-1, slot},
	} {
		g, f := readyGroup(t, chosen, 3)
		for _, f.slot = range slots {
			seen := map[*sender.Sender]bool{}
			for range 100 {
				seen[f.alternative()] = true
			}
			switch {
			case chosen == route.Failover:
				require.Equal(t, map[*sender.Sender]bool{g.targets[2].addr.sender: true}, seen, "the lowest priority")
			case f.slot == slot:
				owner := g.ownersOf(g.candidates(time.Now())).of[slot]
				require.Equal(t, map[*sender.Sender]bool{g.targets[owner].addr.sender: true}, seen)
			default:
				require.Len(t, seen, 3, "%v", chosen)
			}
			require.NotContains(t, seen, nil)
		}
	}
}

// TestRoutedStream_StaysWhereTheOthersRestToo: it would be no better there.
func TestRoutedStream_StaysWhereTheOthersRestToo(t *testing.T) {
	g, f := readyGroup(t, route.RoundRobin, 1)
	st, only := f.stream.(*sender.Stream), g.targets[0]
	for _, rests := range []bool{true, false} {
		only.slow.Store(rests)
		f.free(time.Now())
		require.Equal(t, rests, st.Sender() != only.addr.sender)
	}
}

// TestPublishError_NamesThoseThatCount: not what has left the route, where another one is left.
func TestPublishError_NamesThoseThatCount(t *testing.T) {
	at := func(peer string) *group { return &group{targets: []*target{{topic: "orders", peer: peer}}} }
	r := &resolved{groups: []*group{at("a:1"), at("b:1")}}
	r.targets = append(r.groups[0].targets, r.groups[1].targets...)
	messages := keyed("a", "b")
	left := verdict{fates: []fate{notSent, notSent}, peers: []string{"a:1"}, errs: []error{errLeftRoute}, left: true}
	lacks := verdict{fates: []fate{arrived, notSent}, peers: []string{"b:1"}, errs: []error{errBlocked}}
	var failed *PublishError
	require.ErrorAs(t, r.publishError(messages, []verdict{left, lacks}), &failed)
	require.Equal(t, "b:1", failed.Peer)
	require.Equal(t, "orders", failed.Topic)
	require.ErrorIs(t, failed.Err, errBlocked)
	require.NotErrorIs(t, failed.Err, errLeftRoute)
	require.Equal(t, messages[1:], failed.NotSent)
	require.Empty(t, failed.Unknown)
	require.NoError(t, r.publishError(messages, []verdict{left, {}}), "the other one has them all")
	require.ErrorAs(t, r.publishError(messages, []verdict{left, left}), &failed)
	require.Equal(t, "a:1, a:1", failed.Peer)
	require.Equal(t, messages, failed.NotSent)
}

// TestAddress_IsReadySinceItBecameSo, and no longer when its peer drains: Failover goes back after a stable while.
func TestAddress_IsReadySinceItBecameSo(t *testing.T) {
	m, s, l := newPair(t, AckedConfig{})
	a := m.addressOf(s)
	handler := newConsumer(l, "orders")
	st := s.NewStream(sender.StreamConfig{Identity: newIdentity(), Topic: "orders"})
	_, _, err := st.Publish(t.Context(), acktest.BatchOf(t, "1"), session.Received, 0)
	require.NoError(t, err)
	require.Eventually(t, func() bool { return a.ready.Load() != 0 }, 30*time.Second, time.Millisecond)
	since := a.ready.Load()
	require.False(t, a.changed())
	require.Equal(t, since, a.ready.Load())
	has := handler.next()
	l.Drain()
	require.Eventually(t, func() bool { return a.state() == policy.Draining && a.ready.Load() == 0 }, 30*time.Second, time.Millisecond)
	handler.Settle(has)
}
