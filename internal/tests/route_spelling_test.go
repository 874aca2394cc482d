package tests

import (
	"context"
	"fmt"
	"net"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
	"github.com/buffstreams/watermill-buffstreams/route"
)

// spellings returns a free address in several spellings, and one by its host's name.
func spellings(t *testing.T) map[string][2]string {
	address := freeAddress(t)
	host, port, err := net.SplitHostPort(address)
	require.NoError(t, err)
	testkit.ServeNames(t, host)
	return map[string][2]string{
		"scheme":    {address, "tcp://" + address},
		"case":      {"here.test:" + port, "Here.Test:" + port},
		"port":      {address, host + ":0" + port},
		"IPv4-in-6": {address, "[::ffff:" + host + "]:" + port},
	}
}

// TestRoute_AnAddressSpelledTwiceIsOne: with All each message comes once.
func TestRoute_AnAddressSpelledTwiceIsOne(t *testing.T) {
	for name, addresses := range spellings(t) {
		t.Run(name, func(t *testing.T) {
			got := counting(t, addresses[0])
			pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{
				Resolver: route.Static{"orders": {Addresses: addresses[:], Policy: route.All}}, Confirm: buffstreams.ConfirmHandled,
			}, nil)
			require.NoError(t, err)
			require.NoError(t, pub.Publish("orders", newMessages(10)...))
			require.NoError(t, pub.Close())
			require.EqualValues(t, 10, got.Load())
			require.Len(t, pub.Stats().Topics[0].Addresses, 1)
		})
	}
}

// TestHash_PublishersThatSpellAddressesDifferentlyAgree: a key has one host.
func TestHash_PublishersThatSpellAddressesDifferentlyAgree(t *testing.T) {
	var got [2]*atomic.Int64
	var addresses, others []string
	for i := range got {
		address := freeAddress(t)
		got[i] = counting(t, address)
		addresses, others = append(addresses, address), append(others, "tcp://"+address)
	}
	publisher := func(addresses []string) *buffstreams.Publisher {
		pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{
			Resolver: route.Static{"orders": {Addresses: addresses, Policy: route.Hash, HashKey: "key"}},
			Confirm:  buffstreams.ConfirmHandled,
		}, nil)
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, pub.Close()) })
		return pub
	}
	one, other := publisher(addresses), publisher(others)
	for _, pub := range []*buffstreams.Publisher{one, other} {
		require.NoError(t, pub.Publish("orders", newMessage("x")))
		awaitReady(t, pub)
	}
	for i := range 50 {
		msg := withKey(fmt.Sprint(i), 2)
		before := got[0].Load()
		require.NoError(t, one.Publish("orders", msg[0]))
		require.NoError(t, other.Publish("orders", msg[1]))
		require.Contains(t, []int64{0, 2}, got[0].Load()-before, "key %d has two hosts", i)
	}
}

// TestManager_AnAddressSpelledTwiceHasOneConnection: of two topics that name it.
func TestManager_AnAddressSpelledTwiceHasOneConnection(t *testing.T) {
	for name, addresses := range spellings(t) {
		t.Run(name, func(t *testing.T) {
			sub, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{}, nil)
			require.NoError(t, err)
			t.Cleanup(func() { require.NoError(t, sub.Close()) })
			var dialed atomic.Int64
			m, err := buffstreams.NewManager(buffstreams.ManagerConfig{Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
				dialed.Add(1)
				return (&net.Dialer{}).DialContext(ctx, network, address)
			}})
			require.NoError(t, err)
			t.Cleanup(func() { require.NoError(t, m.Close()) })
			pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{Manager: m}, nil)
			require.NoError(t, err)
			for i, address := range addresses {
				messages := subscribe(t, sub, fmt.Sprint(addresses[0], "/", i))
				require.NoError(t, pub.Publish(fmt.Sprint(address, "/", i), newMessage("x")))
				receiveAcked(t, messages, 1)
			}
			require.EqualValues(t, 1, dialed.Load())
			require.True(t, m.PeerStatus(addresses[1]).Connected)
			require.NoError(t, pub.Close())
		})
	}
}

// TestManager_ListensThereUnderAnotherName: the error says under which, and not that Subscribers should share a Manager, as
// they do.
func TestManager_ListensThereUnderAnotherName(t *testing.T) {
	m, err := buffstreams.NewManager(buffstreams.ManagerConfig{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, m.Close()) })
	sub, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{Manager: m}, nil)
	require.NoError(t, err)
	addresses := spellings(t)["case"]
	subscribe(t, sub, addresses[0]+"/a")
	_, err = sub.Subscribe(t.Context(), addresses[1]+"/b")
	require.ErrorContains(t, err, addresses[0])
	require.NotContains(t, err.Error(), "share a Manager")
}
