package tests

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/route"
)

// TestManager_MovesWhatAClosedPublisherLeft, and counts the uses of both addresses right: the one that another publisher uses stays, and
// the one to which the messages went is forgotten when they are handled.
func TestManager_MovesWhatAClosedPublisherLeft(t *testing.T) {
	t.Parallel()
	first, second := freeAddress(t), freeAddress(t)
	sub, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{ListenAddress: first, CloseTimeout: 10 * time.Second}, nil)
	require.NoError(t, err)
	held := subscribe(t, sub, "orders") // nothing is read from it
	rest := counting(t, second)
	m, err := buffstreams.NewManager(buffstreams.ManagerConfig{})
	require.NoError(t, err)
	defer func() { require.NoError(t, m.Close()) }()
	publisher := func(addresses ...string) *buffstreams.Publisher {
		pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{
			Manager: m, Resolver: route.Static{"orders": {Addresses: addresses}}, PublishTimeout: patience,
		}, nil)
		require.NoError(t, err)
		return pub
	}
	pub, stays, also := publisher(first, second), publisher(first), publisher(second)
	require.NoError(t, also.Publish("orders", newMessage("x"))) // an address that nothing uses is closed after a second
	require.NoError(t, pub.Publish("orders", newMessages(3)...))
	require.NoError(t, stays.Publish("orders", newMessage("x")))
	require.NoError(t, pub.Close(), "the subscriber has received them, and the Manager keeps them")

	require.NoError(t, sub.Close())
	for range held { // until the channel is closed
		t.Fatal("it was given back")
	}
	require.Eventually(t, func() bool { return rest.Load() == 4 }, patience, 10*time.Millisecond, "they went to the other address")
	require.NoError(t, also.Close())
	require.Eventually(t, func() bool { return !m.PeerStatus(second).Connected }, patience, 10*time.Millisecond, "nothing uses it")

	counting(t, first)
	require.NoError(t, stays.Publish("orders", newMessage("x")))
	require.NoError(t, stays.Drain(t.Context()))
	require.NoError(t, stays.Close())
	require.Eventually(t, func() bool { return len(m.Stats().Addresses) == 0 }, patience, 50*time.Millisecond)
}

// TestManager_MovesWhatAClosedPublisherLeftToAnAddressThatNothingUses: it is kept for as long as messages may have to move there.
func TestManager_MovesWhatAClosedPublisherLeftToAnAddressThatNothingUses(t *testing.T) {
	t.Parallel()
	for _, policy := range []route.Policy{route.Failover, route.RoundRobin, route.Hash} {
		t.Run(fmt.Sprint(policy), func(t *testing.T) {
			t.Parallel()
			first, second := freeAddress(t), freeAddress(t)
			sub, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{ListenAddress: first, CloseTimeout: 10 * time.Second}, nil)
			require.NoError(t, err)
			subscribe(t, sub, "orders") // nothing is read from it
			m, err := buffstreams.NewManager(buffstreams.ManagerConfig{})
			require.NoError(t, err)
			defer func() { require.NoError(t, m.Close()) }()
			pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{
				Manager: m, Resolver: route.Static{"orders": {Addresses: []string{first, second}, Policy: policy, HashKey: "k"}}, PublishTimeout: patience,
			}, nil)
			require.NoError(t, err)
			require.NoError(t, pub.Publish("orders", newMessages(3)...))
			require.NoError(t, pub.Close())

			brief, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{Manager: m}, nil)
			require.NoError(t, err)
			third := freeAddress(t)
			counting(t, third)
			require.NoError(t, brief.Publish(third+"/orders", newMessage("x")))
			require.NoError(t, brief.Drain(t.Context()))
			require.Len(t, m.Stats().Addresses, 3)
			require.NoError(t, brief.Close())
			require.Eventually(t, func() bool { return len(m.Stats().Addresses) < 3 }, patience, 10*time.Millisecond, "what is left later is forgotten")
			for _, a := range m.Stats().Addresses {
				require.Contains(t, []string{first, second}, a.Address)
			}
			require.Len(t, m.Stats().Addresses, 2)
			rest := counting(t, second)
			require.NoError(t, sub.Close())
			require.Eventually(t, func() bool { return rest.Load() == 3 }, patience, 10*time.Millisecond, "they went to the other address")
			require.Eventually(t, func() bool { return len(m.Stats().Addresses) == 0 }, patience, 50*time.Millisecond, "and nothing is kept")
		})
	}
}
