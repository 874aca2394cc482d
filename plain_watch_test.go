package buffstreams

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/hooks"
	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
)

// plainPair is a subscriber and a publisher on the plain wire.
func plainPair(t *testing.T, pubHooks, subHooks []hooks.Hook, acked AckedConfig) (*Publisher, *Subscriber, string) {
	t.Helper()
	sub, err := NewSubscriber(SubscriberConfig{
		Wire: WireBuffStreams, CloseTimeout: time.Second, ManagerConfig: ManagerConfig{Hooks: subHooks, CloseTimeout: time.Second, Acked: acked},
	}, nil)
	require.NoError(t, err)
	t.Cleanup(func() { _ = sub.Close() })
	addr, err := sub.Addr("127.0.0.1:0")
	require.NoError(t, err)
	pub, err := NewPublisher(PublisherConfig{
		Wire: WireBuffStreams, Confirm: ConfirmEnqueued, CloseTimeout: time.Second,
		ManagerConfig: ManagerConfig{Hooks: pubHooks, CloseTimeout: time.Second},
	}, nil)
	require.NoError(t, err)
	t.Cleanup(func() { _ = pub.Close() })
	return pub, sub, addr.String()
}

// fresh returns what is known now.
func fresh(p *Publisher, s *Subscriber) (PublisherStats, SubscriberStats) {
	p.stats.at, s.stats.at = time.Time{}, time.Time{}
	return p.Stats(), s.Stats()
}

// Connections of the plain wire are told and shown at both ends, from the first attempt, which fails, to their end.
func TestPlain_ConnectionsAreSeenFromOutside(t *testing.T) {
	testkit.CheckLeaks(t)
	pubSpy, subSpy := &spy{}, &spy{}
	pub, sub, address := plainPair(t, []hooks.Hook{pubSpy}, []hooks.Hook{subSpy}, AckedConfig{})
	require.Error(t, pub.Publish("127.0.0.1:1", textMessage("no listener")))
	refused := first(t, pubSpy, anyOf[hooks.Dialed])
	require.Equal(t, "127.0.0.1:1", refused.Address)
	require.Error(t, refused.Err)
	require.Equal(t, "failed", first(t, pubSpy, anyOf[hooks.AddressState]).State)

	out, err := sub.Subscribe(context.Background(), "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, pub.Publish(address, textMessage("order")))
	(<-out).Ack()
	require.Equal(t, address, first(t, pubSpy, anyOf[hooks.Connected]).Address)
	accepted := first(t, subSpy, anyOf[hooks.Accepted])
	require.Equal(t, "127.0.0.1:0", accepted.Listener)
	first(t, subSpy, anyOf[hooks.Handled])
	ofPub, ofSub := fresh(pub, sub)
	require.Len(t, ofPub.Addresses, 2)
	for _, a := range ofPub.Addresses {
		require.True(t, a.Plain)
		if a.Address != address {
			require.Equal(t, "failed", a.State)
			require.Contains(t, a.LastError, "refused")
			require.EqualValues(t, 1, a.Failures)
			continue
		}
		require.Equal(t, "ready", a.State)
		require.EqualValues(t, 1, a.Connects)
		require.NotZero(t, a.Since)
	}
	require.Len(t, ofSub.Listeners[0].Peers, 1)
	require.Equal(t, accepted.Peer, ofSub.Listeners[0].Peers[0].Address)
	require.NotZero(t, ofSub.Listeners[0].Peers[0].Since)

	require.NoError(t, pub.Close())
	lost := first(t, pubSpy, anyOf[hooks.Lost])
	require.Equal(t, address, lost.Address)
	require.True(t, lost.Welcomed)
	require.Equal(t, accepted.Peer, first(t, subSpy, anyOf[hooks.Lost]).Address)
	_, ofSub = fresh(pub, sub)
	require.Empty(t, ofSub.Listeners[0].Peers)
	require.NoError(t, sub.Close())
	require.Len(t, of[hooks.Lost](pubSpy), 1, "once")
	require.Len(t, of[hooks.Lost](subSpy), 1, "once")
}

// A peer that is not admitted is told as refused, and not as lost.
func TestPlain_RefusalsAreTold(t *testing.T) {
	testkit.CheckLeaks(t)
	subSpy := &spy{}
	pub, sub, address := plainPair(t, nil, []hooks.Hook{subSpy}, AckedConfig{
		Authenticate: func(context.Context, Peer) (string, error) { return "", errors.New("unknown") },
	})
	require.NoError(t, pub.Publish(address, textMessage("order")))
	require.Error(t, first(t, subSpy, anyOf[hooks.Refused]).Err)
	_ = pub.Close()
	require.NoError(t, sub.Close())
	require.Empty(t, of[hooks.Accepted](subSpy))
	require.Empty(t, of[hooks.Lost](subSpy))
}

// A hook that blocks holds up no Close beyond its time.
func TestPlain_AHookThatBlocksHoldsUpNoClose(t *testing.T) {
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	blocks := &spy{on: func(e any) {
		if _, ok := e.(hooks.Connected); ok {
			<-release
		}
	}}
	pub, sub, address := plainPair(t, []hooks.Hook{blocks}, nil, AckedConfig{})
	published := make(chan error, 1)
	go func() { published <- pub.Publish(address, textMessage("order")) }() // ends with Close
	first(t, blocks, anyOf[hooks.Connected])
	began := time.Now()
	err := pub.Close()
	require.Less(t, time.Since(began), 20*time.Second)
	require.ErrorContains(t, err, "ManagerConfig.Hooks")
	<-published
	require.NoError(t, sub.Close())
}
