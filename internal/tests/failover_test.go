package tests

import (
	"context"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
	"github.com/buffstreams/watermill-buffstreams/route"
)

// counting acks everything of "orders" at an address, and counts it.
func counting(t *testing.T, address string) *atomic.Int64 {
	sub, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{ListenAddress: address}, nil)
	require.NoError(t, err)
	t.Cleanup(func() { _ = sub.Close() })
	messages, err := sub.Subscribe(context.Background(), "orders")
	require.NoError(t, err)
	var n atomic.Int64
	go func() { // ends with the subscription
		for m := range messages {
			n.Add(1)
			m.Ack()
		}
	}()
	return &n
}

// silentAddress takes connections and says nothing.
func silentAddress(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	return l.Addr().String()
}

// routedTo returns a publisher of "orders" with a time-out.
func routedTo(t *testing.T, r route.Route, timeout time.Duration) *buffstreams.Publisher {
	pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{
		Resolver: route.Static{"orders": r}, PublishTimeout: timeout, CloseTimeout: time.Second,
	}, nil)
	require.NoError(t, err)
	t.Cleanup(func() { _ = pub.Close() })
	return pub
}

func TestFailover_FirstAddressIsDead(t *testing.T) {
	alive := freeAddress(t)
	got := counting(t, alive)
	pub := routedTo(t, route.Route{Addresses: []string{freeAddress(t), alive}}, patience)
	for range 3 {
		began := time.Now()
		require.NoError(t, pub.Publish("orders", newMessage("x")))
		require.Less(t, time.Since(began), patience/2)
	}
	require.Eventually(t, func() bool { return got.Load() == 3 }, patience, time.Millisecond)
}

// TestFailover_FirstAddressesAreSilent: they take the connection, and never answer.
func TestFailover_FirstAddressesAreSilent(t *testing.T) {
	for _, confirm := range []buffstreams.Confirm{buffstreams.ConfirmReceived, buffstreams.ConfirmEnqueued, buffstreams.ConfirmHandled} {
		alive := freeAddress(t)
		got := counting(t, alive)
		pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{
			Resolver: route.Static{"orders": {Addresses: []string{silentAddress(t), silentAddress(t), silentAddress(t), alive}}},
			Confirm:  confirm, PublishTimeout: patience, ManagerConfig: buffstreams.ManagerConfig{Acked: buffstreams.AckedConfig{HandshakeTimeout: patience}},
		}, nil)
		require.NoError(t, err)
		began := time.Now()
		require.NoError(t, pub.Publish("orders", newMessage("x")))
		require.Less(t, time.Since(began), patience/2, "each has patience to greet")
		require.Eventually(t, func() bool { return got.Load() == 1 }, patience, time.Millisecond)
		require.NoError(t, pub.Close())
	}
}

// TestFailover_FirstAddressIsUsed where it is there, whatever the order in which connections are made.
func TestFailover_FirstAddressIsUsed(t *testing.T) {
	for range 10 {
		requireFirst(t, 3, 0, func(addresses []string) route.Route { return route.Route{Addresses: addresses} })
	}
}

// TestFailover_OrderOfPrioritiesNotOfAddresses: with attributes the order of the list means nothing.
func TestFailover_OrderOfPrioritiesNotOfAddresses(t *testing.T) {
	requireFirst(t, 2, 1, func(addresses []string) route.Route {
		return route.Route{Addresses: addresses, Attributes: map[string]route.Attributes{addresses[0]: {Priority: 2}, addresses[1]: {Priority: 1}}}
	})
}

// requireFirst requires that one of n addresses gets the first messages. It is tried again where the machine takes longer than a first attempt
// to connect may.
func requireFirst(t *testing.T, n, first int, of func(addresses []string) route.Route) {
	t.Helper()
	var got []int64
	for range 5 {
		var addresses []string
		var counts []*atomic.Int64
		for i := range n {
			addresses = append(addresses, freeAddress(t))
			counts = append(counts, counting(t, addresses[i]))
		}
		pub := routedTo(t, of(addresses), patience)
		require.NoError(t, pub.Publish("orders", newMessages(4)...))
		require.NoError(t, pub.Drain(t.Context()))
		got = nil
		for _, c := range counts {
			got = append(got, c.Load())
		}
		if got[first] == 4 {
			return
		}
	}
	require.Fail(t, "other addresses are used", "%v", got)
}

func TestRoundRobin_OneOfThreeIsDead(t *testing.T) {
	addresses := []string{freeAddress(t), freeAddress(t), freeAddress(t)}
	a, b := counting(t, addresses[0]), counting(t, addresses[1])
	for _, policy := range []route.Policy{route.RoundRobin, route.LeastPending, route.Hash} {
		a.Store(0)
		b.Store(0)
		pub := routedTo(t, route.Route{Addresses: addresses, Policy: policy, HashKey: "k"}, patience)
		for i := range 64 {
			msg := newMessage("x")
			msg.Metadata.Set("k", string(rune('a'+i)))
			began := time.Now()
			require.NoError(t, pub.Publish("orders", msg))
			require.Less(t, time.Since(began), patience/2)
		}
		require.Eventually(t, func() bool { return a.Load()+b.Load() == 64 }, patience, time.Millisecond)
		require.Positive(t, a.Load())
		require.Positive(t, b.Load())
	}
}

// TestPublishError_AccountsForEveryMessageOfTheCall, once, in one time.
func TestPublishError_AccountsForEveryMessageOfTheCall(t *testing.T) {
	t.Parallel()
	const timeout = 4 * time.Second // of which another is more than a busy machine takes besides
	type result struct {
		err  error
		took time.Duration
	}
	ended := map[route.Policy]chan result{}
	for _, policy := range []route.Policy{route.RoundRobin, route.LeastPending, route.Hash, route.Failover, route.All} {
		pub := routedTo(t, route.Route{Addresses: []string{freeAddress(t), freeAddress(t)}, Policy: policy, HashKey: "k"}, timeout)
		of := make(chan result, 1)
		ended[policy] = of
		go func() { // ends with its timeout
			began := time.Now()
			err := pub.Publish("orders", newMessages(4)...)
			of <- result{err, time.Since(began)}
		}()
	}
	for policy, of := range ended {
		r := testkit.Receive(t, of)
		var failed *buffstreams.PublishError
		require.ErrorAs(t, r.err, &failed, "%v", policy)
		require.Len(t, append(failed.NotSent, failed.Unknown...), 4, "%v", policy)
		require.ErrorIs(t, failed, buffstreams.ErrTimeout, "%v", policy)
		require.Less(t, r.took, 2*timeout, "%v", policy)
	}
}
