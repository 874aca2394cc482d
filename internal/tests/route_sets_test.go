package tests

import (
	"context"
	"fmt"
	"net"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/route"
)

// changing returns a Publisher whose route can change.
func changing(t *testing.T, r route.Route, confirm buffstreams.Confirm) (*buffstreams.Publisher, *watched) {
	w := &watched{route: r}
	pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{
		Resolver: w, Confirm: confirm, CloseTimeout: 300 * time.Millisecond,
		ManagerConfig: buffstreams.ManagerConfig{Acked: quick(buffstreams.AckedConfig{}), CloseTimeout: 300 * time.Millisecond},
	}, nil)
	require.NoError(t, err)
	t.Cleanup(func() { _ = pub.Close() })
	return pub, w
}

// requirePending waits until Stats, whose results are kept for a second, says that so many messages of the only topic are on their way.
func requirePending(t *testing.T, pub *buffstreams.Publisher, want int) {
	t.Helper()
	before := pub.Stats().At
	require.Eventually(t, func() bool { return !pub.Stats().At.Equal(before) }, patience, 10*time.Millisecond, "it is what it said before")
	require.Eventually(t, func() bool { return pub.Stats().Topics[0].Pending == want }, patience, 10*time.Millisecond)
}

// awaitReady waits until a publisher is connected to all addresses of its routes.
func awaitReady(t *testing.T, pub *buffstreams.Publisher) {
	t.Helper()
	require.Eventually(t, func() bool {
		return !slices.ContainsFunc(pub.Stats().Addresses, func(a buffstreams.AddressStats) bool { return a.State != "ready" })
	}, patience, 10*time.Millisecond)
}

// TestAll_WhatAnAddressLacksGoesToNoOther when that address leaves the route: each has had its own. It comes to the address when that
// is there again, though it is in no route, and is counted until then.
func TestAll_WhatAnAddressLacksGoesToNoOther(t *testing.T) {
	t.Parallel()
	addresses := []string{freeAddress(t), freeAddress(t), freeAddress(t)}
	second, third := counting(t, addresses[1]), counting(t, addresses[2])
	pub, w := changing(t, route.Route{Addresses: addresses, Policy: route.All}, buffstreams.ConfirmEnqueued)
	require.NoError(t, pub.Publish("orders", newMessages(10)...))
	require.Eventually(t, func() bool { return second.Load() == 10 && third.Load() == 10 }, patience, time.Millisecond)
	came := freeAddress(t)
	fourth := counting(t, came)
	w.set(route.Route{Addresses: append(addresses[1:], came), Policy: route.All})
	require.NoError(t, pub.Publish("orders", newMessage("x")))
	require.Eventually(t, func() bool { return second.Load() == 11 && third.Load() == 11 && fourth.Load() == 1 }, patience, time.Millisecond)
	requirePending(t, pub, 10)
	require.EqualValues(t, 11, second.Load())
	require.EqualValues(t, 11, third.Load())
	require.EqualValues(t, 1, fourth.Load())
	first := counting(t, addresses[0])
	require.Eventually(t, func() bool { return first.Load() == 10 }, patience, time.Millisecond)
	require.NoError(t, pub.Drain(t.Context()))
	require.NoError(t, pub.Close())
}

// TestAll_WaitsForEveryGroup, whichever takes its time.
func TestAll_WaitsForEveryGroup(t *testing.T) {
	addresses, channels := listeners(t, 2, "orders")
	for slow := range 2 {
		pub, _ := changing(t, route.Route{Addresses: addresses, Policy: route.All}, buffstreams.ConfirmHandled)
		call := later(func() error { return pub.Publish("orders", newMessage("x")) })
		receive(t, channels[1-slow]).Ack()
		held := receive(t, channels[slow])
		select {
		case err := <-call:
			require.Fail(t, "it has not waited", "%v", err)
		case <-time.After(200 * time.Millisecond):
		}
		held.Ack()
		require.NoError(t, requireResult(t, call))
		require.NoError(t, pub.Close())
	}
}

// TestRoute_FirstMessagesAreShared though one address takes longer to connect. It is tried again where the machine takes longer
// than a first attempt may.
func TestRoute_FirstMessagesAreShared(t *testing.T) {
	first, second := freeAddress(t), freeAddress(t)
	one, other := counting(t, first), counting(t, second)
	for range 5 {
		before := other.Load()
		pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{
			Resolver: route.Static{"orders": {Addresses: []string{first, second}, Policy: route.RoundRobin}}, Confirm: buffstreams.ConfirmHandled,
			ManagerConfig: buffstreams.ManagerConfig{Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
				if address == second {
					time.Sleep(50 * time.Millisecond)
				}
				return (&net.Dialer{}).DialContext(ctx, network, address)
			}},
		}, nil)
		require.NoError(t, err)
		require.NoError(t, pub.Publish("orders", newMessages(4)...))
		require.NoError(t, pub.Close())
		if other.Load() == before+2 {
			return
		}
	}
	require.Fail(t, "the address that is connected first gets all", "%d and %d", one.Load(), other.Load())
}

// TestAll_CountsWhatAGroupHoldsThatLeft the route, in slots of Hash too.
func TestAll_CountsWhatAGroupHoldsThatLeft(t *testing.T) {
	t.Parallel()
	home := freeAddress(t)
	got := counting(t, home)
	hashed := func(addresses ...string) route.Route {
		return route.Route{Addresses: addresses, Policy: route.Hash, HashKey: "key"}
	}
	pub, w := changing(t, route.Route{Policy: route.All, Groups: []route.Route{hashed(home), hashed(freeAddress(t), freeAddress(t))}}, buffstreams.ConfirmEnqueued)
	keyed := newMessage("x")
	keyed.Metadata.Set("key", "a")
	require.NoError(t, pub.Publish("orders", keyed))
	w.set(route.Route{Policy: route.All, Groups: []route.Route{hashed(home)}})
	require.Eventually(t, func() bool { return got.Load() == 1 }, patience, time.Millisecond)
	requirePending(t, pub, 1)
	var left *buffstreams.UndeliveredError
	require.ErrorAs(t, pub.Close(), &left)
	require.Equal(t, 1, left.Count)
	require.EqualValues(t, 1, got.Load())
}

// TestAll_GroupIsKnownByItsAddresses: in another order groups are the same, and nothing moves.
func TestAll_GroupIsKnownByItsAddresses(t *testing.T) {
	t.Parallel()
	here, dead := freeAddress(t), freeAddress(t)
	got := counting(t, here)
	group := func(addresses ...string) route.Route {
		return route.Route{Addresses: addresses, Policy: route.RoundRobin}
	}
	pub, w := changing(t, route.Route{Policy: route.All, Groups: []route.Route{group(dead), group(here)}}, buffstreams.ConfirmEnqueued)
	require.NoError(t, pub.Publish("orders", newMessages(5)...))
	require.Eventually(t, func() bool { return got.Load() == 5 }, patience, time.Millisecond)
	w.set(route.Route{Policy: route.All, Groups: []route.Route{group(here), group(dead, freeAddress(t))}})
	require.NoError(t, pub.Publish("orders", newMessage("x")))
	require.Eventually(t, func() bool { return got.Load() == 6 }, patience, time.Millisecond)
	requirePending(t, pub, 6)
	other := counting(t, dead)
	require.Eventually(t, func() bool { return other.Load() == 6 }, patience, time.Millisecond)
	require.NoError(t, pub.Close())
}

// TestRoute_AStreamLeavesAnAddressThatItMovedTo, when that leaves the route in its turn.
func TestRoute_AStreamLeavesAnAddressThatItMovedTo(t *testing.T) {
	t.Parallel()
	first, second, third := freeAddress(t), freeAddress(t), freeAddress(t)
	pub, w := changing(t, route.Route{Addresses: []string{first, second}}, buffstreams.ConfirmReceived)
	silent, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{ListenAddress: first, CloseTimeout: time.Second}, nil)
	require.NoError(t, err)
	_ = subscribe(t, silent, "orders")
	other, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{ListenAddress: second, CloseTimeout: time.Second}, nil)
	require.NoError(t, err)
	_ = subscribe(t, other, "orders")
	require.NoError(t, pub.Publish("orders", newMessages(5)...)) // to the first, whose handlers do nothing
	go func() { _ = silent.Close() }()                           // what it has goes to the second
	moved := func(address string) func() bool {
		return func() bool {
			for _, a := range pub.Stats().Addresses {
				if a.Address == address && a.Pending >= 4 { // one may be in a handler's channel
					return true
				}
			}
			return false
		}
	}
	require.Eventually(t, moved(second), patience, 50*time.Millisecond)
	got := counting(t, third)
	w.set(route.Route{Addresses: []string{first, third}})
	require.Eventually(t, func() bool { return got.Load() == 5 }, patience, time.Millisecond)
	require.NoError(t, other.Close())
}

// TestRoute_WhatWasNeverSentLeavesAPeerThatDoesNotGreet, long before its handshake would end, when another address is there.
func TestRoute_WhatWasNeverSentLeavesAPeerThatDoesNotGreet(t *testing.T) {
	t.Parallel()
	for name, policy := range map[string]route.Policy{"Failover": route.Failover, "RoundRobin": route.RoundRobin, "Hash": route.Hash} {
		t.Run(name, func(t *testing.T) {
			address := freeAddress(t)
			pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{
				Resolver: route.Static{"orders": {Addresses: []string{silentAddress(t), address}, Policy: policy, HashKey: "key"}},
				Confirm:  buffstreams.ConfirmEnqueued, CloseTimeout: time.Millisecond,
				ManagerConfig: buffstreams.ManagerConfig{Acked: quick(buffstreams.AckedConfig{HandshakeTimeout: time.Hour, DeadAfter: time.Hour})},
			}, nil)
			require.NoError(t, err)
			t.Cleanup(func() { _ = pub.Close() })
			for i := range 10 {
				m := newMessage("x")
				m.Metadata.Set("key", fmt.Sprint(i))
				require.NoError(t, pub.Publish("orders", m))
			}
			got := counting(t, address)
			require.Eventually(t, func() bool { return got.Load() == 10 }, 10*time.Second, time.Millisecond, "a dead peer is given up after 12 s")
			require.NoError(t, pub.Drain(t.Context()))
		})
	}
}

// TestRoute_WhatADrainingAddressWasNotSentGoesElsewhereAtOnce, though its handlers take their time with what they have.
func TestRoute_WhatADrainingAddressWasNotSentGoesElsewhereAtOnce(t *testing.T) {
	t.Parallel()
	for name, confirm := range map[string]buffstreams.Confirm{"received": buffstreams.ConfirmReceived, "handled": buffstreams.ConfirmHandled} {
		t.Run(name, func(t *testing.T) {
			first, second := freeAddress(t), freeAddress(t)
			closing, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{
				ListenAddress: first, CloseTimeout: patience, ConsumerGroup: "g",
				ManagerConfig: buffstreams.ManagerConfig{Acked: buffstreams.AckedConfig{WindowMessages: 4}},
			}, nil)
			require.NoError(t, err)
			held := subscribe(t, closing, "orders")
			pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{
				Resolver: route.Static{"orders": {Addresses: []string{first, second}}}, Confirm: confirm,
				ManagerConfig: buffstreams.ManagerConfig{Acked: quick(buffstreams.AckedConfig{MoveAfter: time.Hour, WindowMessages: 20})},
			}, nil)
			require.NoError(t, err)
			t.Cleanup(func() { _ = pub.Close() })
			var returned atomic.Int64
			var calls []<-chan error
			for range 12 { // four are in the window of the first, more wait there, and the last in line for room
				calls = append(calls, later(func() error {
					defer returned.Add(1)
					return pub.Publish("orders", newMessages(2)...)
				}))
			}
			busy := receive(t, held)
			require.Eventually(t, func() bool {
				time.Sleep(time.Until(pub.Stats().At.Add(1100 * time.Millisecond)))
				topics := pub.Stats().Topics
				return topics[0].Pending == 20 && topics[0].Calls >= 10
			}, patience, time.Millisecond)
			got := counting(t, second)
			require.Eventually(t, func() bool {
				all := pub.Stats().Addresses
				return all[0].State == "ready" && all[1].State == "ready"
			}, patience, 50*time.Millisecond)
			closed := later(closing.Close)
			require.Eventually(t, func() bool { return returned.Load() >= 10 && got.Load() >= 20 }, patience/2, time.Millisecond, "they wait for a handler")
			busy.Ack()
			for m := range held {
				m.Ack()
			}
			require.NoError(t, requireResult(t, closed))
			for _, c := range calls {
				require.NoError(t, requireResult(t, c))
			}
			require.NoError(t, pub.Drain(t.Context()))
		})
	}
}
