package tests

import (
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/hooks"
	"github.com/buffstreams/watermill-buffstreams/route"
)

// TestAll_FanOutBetweenGroupsCompetitionWithin: each group gets every message once.
func TestAll_FanOutBetweenGroupsCompetitionWithin(t *testing.T) {
	a, b, c := freeAddress(t), freeAddress(t), freeAddress(t)
	gotA, gotB, gotC := counting(t, a), counting(t, b), counting(t, c)
	pub := routedTo(t, route.Route{Policy: route.All, Groups: []route.Route{
		{Addresses: []string{a, b}, Policy: route.RoundRobin}, {Addresses: []string{freeAddress(t), c}},
	}}, patience)
	require.NoError(t, pub.Publish("orders", newMessages(10)...))
	require.Eventually(t, func() bool { return gotA.Load()+gotB.Load() == 10 && gotC.Load() == 10 }, patience, time.Millisecond)
	require.Eventually(t, func() bool { // as soon as both are connected
		return !slices.ContainsFunc(pub.Stats().Addresses, func(s buffstreams.AddressStats) bool {
			return (s.Address == a || s.Address == b) && s.State != "ready"
		})
	}, patience, 10*time.Millisecond)
	before := gotB.Load()
	require.NoError(t, pub.Publish("orders", newMessages(10)...))
	require.Eventually(t, func() bool { return gotA.Load()+gotB.Load() == 20 && gotC.Load() == 20 }, patience, time.Millisecond)
	require.EqualValues(t, 5, gotB.Load()-before)
}

// TestAll_WhatAGroupLacksIsUnknown, and the group is named. It goes to all groups side by side, in one time.
func TestAll_WhatAGroupLacksIsUnknown(t *testing.T) {
	t.Parallel()
	alive, dead := freeAddress(t), []string{freeAddress(t), freeAddress(t)}
	got := counting(t, alive)
	const timeout = 4 * time.Second // of which another is more than a busy machine takes besides
	pub := routedTo(t, route.Route{Policy: route.All, Groups: []route.Route{
		{Addresses: dead, Policy: route.LeastPending}, {Addresses: []string{alive}}, {Addresses: dead, Policy: route.Hash, HashKey: "k"},
	}}, timeout)
	began := time.Now()
	err := pub.Publish("orders", newMessages(3)...)
	require.Less(t, time.Since(began), 2*timeout)
	var failed *buffstreams.PublishError
	require.ErrorAs(t, err, &failed)
	require.Len(t, failed.Unknown, 3)
	require.Empty(t, failed.NotSent)
	require.ErrorContains(t, err, "group 1")
	require.ErrorContains(t, err, "group 3")
	require.ErrorContains(t, err, dead[0])
	require.NotContains(t, err.Error(), "group 2")
	require.Eventually(t, func() bool { return got.Load() == 3 }, patience, time.Millisecond)
}

// TestAll_WhatNoGroupGotIsNotSent: publishing it again duplicates nothing.
func TestAll_WhatNoGroupGotIsNotSent(t *testing.T) {
	dead := []string{freeAddress(t), freeAddress(t)}
	pub := routedTo(t, route.Route{Policy: route.All, Groups: []route.Route{
		{Addresses: dead, Policy: route.LeastPending}, {Addresses: dead, Policy: route.RoundRobin},
	}}, 300*time.Millisecond)
	var failed *buffstreams.PublishError
	require.ErrorAs(t, pub.Publish("orders", newMessages(3)...), &failed)
	require.Len(t, failed.NotSent, 3)
	require.Empty(t, failed.Unknown)
}

// TestRoundRobin_PassesAnAddressWithoutRoom: it has taken a window of messages and handles none. Calls that were on their way to
// it wait; no later one does.
func TestRoundRobin_PassesAnAddressWithoutRoom(t *testing.T) {
	for _, policy := range []route.Policy{route.RoundRobin, route.LeastPending} {
		full, roomy := freeAddress(t), freeAddress(t)
		sub, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{
			ListenAddress: full, CloseTimeout: time.Millisecond, ManagerConfig: buffstreams.ManagerConfig{Acked: buffstreams.AckedConfig{WindowMessages: 16}},
		}, nil)
		require.NoError(t, err)
		subscribe(t, sub, "orders")
		got := counting(t, roomy)
		pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{
			Resolver: route.Static{"orders": {Addresses: []string{full, roomy}, Policy: policy}}, Confirm: buffstreams.ConfirmEnqueued, CloseTimeout: time.Millisecond,
		}, nil)
		require.NoError(t, err)
		for range 1000 {
			began := time.Now()
			require.NoError(t, pub.Publish("orders", newMessage("x")))
			require.Less(t, time.Since(began), 15*time.Second, "PublishTimeout is 30 s")
			time.Sleep(50 * time.Microsecond)
		}
		require.Eventually(t, func() bool { return got.Load() >= 900 }, patience, time.Millisecond)
		_ = pub.Close()
		_ = sub.Close() // says what it has not handled
	}
}

// TestRoundRobin_StaysEvenWithManyCallers: what calls do that go together evens out.
func TestRoundRobin_StaysEvenWithManyCallers(t *testing.T) {
	const callers, each = 256, 90
	var addresses []string
	var got []*atomic.Int64
	for range 3 {
		address := freeAddress(t)
		addresses, got = append(addresses, address), append(got, counting(t, address))
	}
	pub := routedTo(t, route.Route{Addresses: addresses, Policy: route.RoundRobin}, time.Minute)
	var calling sync.WaitGroup
	for range callers {
		calling.Go(func() { // ends with its last message
			for range each {
				assert.NoError(t, pub.Publish("orders", newMessage("x")))
			}
		})
	}
	calling.Wait()
	sum := func() (n int64) {
		for _, g := range got {
			n += g.Load()
		}
		return n
	}
	require.Eventually(t, func() bool { return sum() == callers*each }, patience, time.Millisecond)
	for i, g := range got {
		require.InEpsilon(t, callers*each/3, g.Load(), 0.1, "address %d", i) // a turn, and what callers that come and go change
	}
}

// TestRoute_NothingMovesFromTLSToPlaintext: neither within a route, nor when a route changes.
func TestRoute_NothingMovesFromTLSToPlaintext(t *testing.T) {
	t.Parallel()
	plain := freeAddress(t)
	got := counting(t, plain)
	pub := routedTo(t, route.Route{Addresses: []string{"tls://" + freeAddress(t), plain}}, time.Second)
	require.ErrorIs(t, pub.Publish("orders", newMessage("x")), buffstreams.ErrBadTopic)

	w := &watched{route: route.Route{Addresses: []string{"tls://" + freeAddress(t)}}}
	changing, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{Resolver: w, Confirm: buffstreams.ConfirmEnqueued, CloseTimeout: time.Millisecond}, nil)
	require.NoError(t, err)
	require.NoError(t, changing.Publish("orders", newMessage("secret")))
	require.Eventually(t, w.isWatched, patience, time.Millisecond) // else what is open goes to the first address, and stays there
	w.set(route.Route{Addresses: []string{plain}})
	require.NoError(t, changing.Publish("orders", newMessage("open")))
	require.Eventually(t, func() bool { return got.Load() == 1 }, patience, time.Millisecond)
	require.Never(t, func() bool { return got.Load() > 1 }, 1500*time.Millisecond, 10*time.Millisecond)
	var left *buffstreams.UndeliveredError
	require.ErrorAs(t, changing.Close(), &left)
	require.Equal(t, 1, left.Count)
}

// routeSpy notes what hooks say of addresses.
type routeSpy struct {
	mu     sync.Mutex // guards the fields below
	states map[string][]string
	moved  []hooks.Moved
}

func (s *routeSpy) OnAddressState(e hooks.AddressState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.states[e.Address] = append(s.states[e.Address], e.State)
}

func (s *routeSpy) OnMoved(e hooks.Moved) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.moved = append(s.moved, e)
}

// TestRoute_WhatWaitedForAnAddressThatLeftMoves to one that came in its place; hooks see it, and the states of both.
func TestRoute_WhatWaitedForAnAddressThatLeftMoves(t *testing.T) {
	dead, address := freeAddress(t), freeAddress(t)
	w := &watched{route: route.Route{Addresses: []string{dead}}}
	spy := &routeSpy{states: map[string][]string{}}
	pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{
		Resolver: w, Confirm: buffstreams.ConfirmEnqueued, ManagerConfig: buffstreams.ManagerConfig{Hooks: []hooks.Hook{spy}},
	}, nil)
	require.NoError(t, err)
	require.NoError(t, pub.Publish("orders", newMessages(10)...))
	got := counting(t, address)
	w.set(route.Route{Addresses: []string{address}})
	require.Eventually(t, func() bool { return got.Load() == 10 }, patience, time.Millisecond)
	require.NoError(t, pub.Close())
	require.Equal(t, []hooks.Moved{{Topic: "orders", From: dead, To: address, Messages: 10, Tenure: 1}}, spy.moved)
	require.Equal(t, []string{"connecting", "ready"}, spy.states[address][:2])
	require.NotContains(t, spy.states[dead], "ready")
	require.Contains(t, spy.states[dead], "gone")
}

// TestRoute_AnAddressThatLeavesGivesBack what no handler has there, though it lives on.
func TestRoute_AnAddressThatLeavesGivesBack(t *testing.T) {
	old, address := freeAddress(t), freeAddress(t)
	sub, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{ListenAddress: old, CloseTimeout: time.Second}, nil)
	require.NoError(t, err)
	held := subscribe(t, sub, "orders")
	w := &watched{route: route.Route{Addresses: []string{old}}}
	pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{Resolver: w}, nil)
	require.NoError(t, err)
	require.NoError(t, pub.Publish("orders", newMessages(10)...))
	busy := receive(t, held)
	got := counting(t, address)
	w.set(route.Route{Addresses: []string{address}})
	acked := time.AfterFunc(500*time.Millisecond, func() { busy.Ack() })
	defer acked.Stop()
	require.Eventually(t, func() bool { return got.Load() == 9 }, patience, time.Millisecond)
	require.NoError(t, pub.Drain(t.Context()))
	require.EqualValues(t, 9, got.Load())
	require.NoError(t, pub.Close())
	require.NoError(t, sub.Close())
}
