package tests

import (
	"context"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/dedupe"
	"github.com/buffstreams/watermill-buffstreams/pool"
)

// TestAcksThatTheRestartSwallowed: handlers ack while the network is down, then the subscriber restarts. Its publisher
// does not know, and resends. With a store nothing comes twice; without one everything does.
func TestAcksThatTheRestartSwallowed(t *testing.T) {
	t.Run("with a store", func(t *testing.T) {
		store, err := dedupe.Open(filepath.Join(t.TempDir(), "dedupe"))
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, store.Close()) })
		require.Equal(t, []string{"last"}, afterSwallowedAcks(t, store, 1))
	})
	t.Run("without one", func(t *testing.T) {
		require.Equal(t, append(payloads(newMessages(10)), "last"), afterSwallowedAcks(t, nil, 11))
	})
}

// afterSwallowedAcks returns the first n messages that the restarted subscriber gets.
func afterSwallowedAcks(t *testing.T, store pool.DedupeStore, n int) []string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	topic := ln.Addr().String() + "/a"
	require.NoError(t, ln.Close())
	wires := newNetwork(t, 0, 0)
	pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{
		ManagerConfig: pool.ManagerConfig{Dial: wires.dial, Acked: quick(pool.AckedConfig{})},
	}, nil)
	require.NoError(t, err)
	newSubscriber := func() *buffstreams.Subscriber {
		sub, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{
			ConsumerGroup: "g", CloseTimeout: 50 * time.Millisecond,
			ManagerConfig: pool.ManagerConfig{Acked: pool.AckedConfig{Dedupe: store}},
		}, nil)
		require.NoError(t, err)
		return sub
	}
	first := newSubscriber()
	messages := subscribe(t, first, topic)
	require.NoError(t, pub.Publish(topic, newMessages(10)...))
	wires.cut()
	receiveAcked(t, messages, 10)
	require.NoError(t, first.Close())
	second := newSubscriber()
	messages = subscribe(t, second, topic)
	wires.restore()
	require.NoError(t, pub.Publish(topic, newMessage("last")))
	got := receiveAcked(t, messages, n)
	require.NoError(t, pub.Close())
	require.NoError(t, second.Close())
	return got
}

func TestPositionIsTheStreams(t *testing.T) {
	h := newHouse(t, pool.ManagerConfig{})
	messages := subscribe(t, h.newSubscriber(t, nil), h.topic("a"))
	require.NoError(t, h.newPublisher(t, nil).Publish(h.topic("a"), newMessages(3)...))
	for i := range 3 {
		msg := receive(t, messages)
		p, ok := buffstreams.PositionFromContext(msg.Context())
		require.True(t, ok)
		require.Equal(t, "a", p.Topic)
		require.EqualValues(t, i+1, p.Sequence)
		msg.Ack()
	}
	_, ok := buffstreams.PositionFromContext(context.Background())
	require.False(t, ok)
}
