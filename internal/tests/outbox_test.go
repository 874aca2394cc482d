package tests

import (
	"context"
	"fmt"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
	"github.com/buffstreams/watermill-buffstreams/pool"
	"github.com/buffstreams/watermill-buffstreams/storage/outbox"
	"github.com/buffstreams/watermill-buffstreams/store"
)

func openOutbox(t *testing.T, dir string) *outbox.Outbox {
	ob, err := outbox.Open(outbox.Config{Dir: dir})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, ob.Close()) })
	return ob
}

// stored makes a publisher on an outbox, with a Manager of its own.
func stored(t *testing.T, ob *outbox.Outbox, dial pool.DialFunc) *buffstreams.Publisher {
	pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{
		Outbox: ob, ManagerConfig: buffstreams.ManagerConfig{Dial: dial, Acked: quick(buffstreams.AckedConfig{})},
	}, nil)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, pub.Close()) })
	return pub
}

func drain(t *testing.T, pub *buffstreams.Publisher) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	require.NoError(t, pub.Drain(ctx))
}

func freeAddress(t *testing.T) string { return testkit.FreeAddress(t) }

func TestOutbox_DeliversAfterARestart(t *testing.T) {
	dir, h := t.TempDir(), newHouse(t, buffstreams.ManagerConfig{})
	ob, err := outbox.Open(outbox.Config{Dir: dir})
	require.NoError(t, err)
	pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{Outbox: ob}, nil)
	require.NoError(t, err)
	msgs := newMessages(1000)
	require.NoError(t, pub.Publish(h.topic("a"), msgs[:600]...)) // nobody listens
	require.NoError(t, pub.Publish(h.topic("a"), msgs[600:]...))
	require.NoError(t, pub.Close())
	require.NoError(t, ob.Close())

	messages := subscribe(t, h.newSubscriber(t, nil), h.topic("a"))
	again := stored(t, openOutbox(t, dir), nil)
	require.Equal(t, payloads(msgs), receiveAcked(t, messages, len(msgs)))
	drain(t, again)
}

func TestOutbox_AnotherPublisherCarriesOn(t *testing.T) {
	t.Run("with a connection of its own", func(t *testing.T) {
		ob := openOutbox(t, t.TempDir())
		carryOn(t, newHouse(t, buffstreams.ManagerConfig{}), stored(t, ob, nil), stored(t, ob, nil))
	})
	t.Run("on the same connection", func(t *testing.T) {
		var dials atomic.Int32
		h := newHouse(t, buffstreams.ManagerConfig{Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			dials.Add(1)
			return (&net.Dialer{}).DialContext(ctx, network, address)
		}})
		h.publisher.Outbox = openOutbox(t, t.TempDir())
		carryOn(t, h, h.newPublisher(t, nil), h.newPublisher(t, nil))
		require.EqualValues(t, 1, dials.Load())
	})
}

// carryOn closes the first of two publishers on an outbox in the midst of its messages.
func carryOn(t *testing.T, h *house, first, second *buffstreams.Publisher) {
	messages := subscribe(t, h.newSubscriber(t, nil), h.topic("a"))
	msgs := newMessages(100)
	require.NoError(t, first.Publish(h.topic("a"), msgs[:50]...))
	require.Equal(t, payloads(msgs[:20]), receiveAcked(t, messages, 20))
	require.NoError(t, first.Close())
	require.NoError(t, second.Publish(h.topic("a"), msgs[50:]...))
	require.Equal(t, payloads(msgs[20:]), receiveAcked(t, messages, 80), "neither gap nor duplicate")
	drain(t, second)
}

// TestOutbox_AbsentDestinationHoldsUpNoOther: one destination has filled its quota, so that a message more is refused,
// before the first message for another.
func TestOutbox_AbsentDestinationHoldsUpNoOther(t *testing.T) {
	h := newHouse(t, buffstreams.ManagerConfig{})
	ob, err := outbox.Open(outbox.Config{Dir: t.TempDir(), QuotaBytes: 64 << 10})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, ob.Close()) })
	pub := stored(t, ob, nil)
	absent, large := freeAddress(t)+"/a", newMessage(string(make([]byte, 1000)))
	for range 1000 {
		if err = pub.Publish(absent, large); err != nil {
			break
		}
	}
	require.ErrorIs(t, err, store.ErrOutboxFull)
	messages := subscribe(t, h.newSubscriber(t, nil), h.topic("a"))
	for i := range 200 {
		require.NoError(t, pub.Publish(h.topic("a"), newMessage(fmt.Sprint(i))))
	}
	require.Equal(t, payloads(newMessages(200)), receiveAcked(t, messages, 200))
	require.ErrorIs(t, pub.Publish(absent, large), store.ErrOutboxFull, "it has kept all of its messages")
}

// TestOutbox_ThroughCuts: nothing is lost or reordered, and a receiver that lives sees nothing twice.
func TestOutbox_ThroughCuts(t *testing.T) {
	const goroutines, count = 4, 1000
	n := newNetwork(t, 0, 0)
	h := newHouse(t, buffstreams.ManagerConfig{})
	messages := subscribe(t, h.newSubscriber(t, nil), h.topic("a"))
	pub := stored(t, openOutbox(t, t.TempDir()), n.dial)
	publishers := publishNumbered(t, pub, h.topic("a"), goroutines, count)
	var seen order
	for i := range goroutines * count {
		msg := receive(t, messages)
		seen.see(t, string(msg.Payload))
		msg.Ack()
		if i%300 == 299 {
			n.cut()
			n.restore()
		}
	}
	publishers.Wait()
	require.Zero(t, seen.duplicates)
	drain(t, pub)
}

func TestOutbox_WithRestartingSubscriber(t *testing.T) {
	const goroutines, count = 4, 1000
	topic := freeAddress(t) + "/a"
	pub := stored(t, openOutbox(t, t.TempDir()), nil)
	publishers := publishNumbered(t, pub, topic, goroutines, count)
	receiveThroughRestarts(t, topic, goroutines*count, 8, func() {
		publishers.Wait()
		drain(t, pub)
	})
}

// TestOutbox_AfterTheSubscriberOfAQuietStreamReturns: the connection is lost while nothing waits, and messages come
// later.
func TestOutbox_AfterTheSubscriberOfAQuietStreamReturns(t *testing.T) {
	topic := freeAddress(t) + "/a"
	pub := stored(t, openOutbox(t, t.TempDir()), nil)
	for i := range 5 {
		sub, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{CloseTimeout: 20 * time.Millisecond, ConsumerGroup: "g"}, nil)
		require.NoError(t, err)
		messages := subscribe(t, sub, topic)
		require.NoError(t, pub.Publish(topic, newMessages(i+1)...))
		require.Equal(t, payloads(newMessages(i+1)), receiveAcked(t, messages, i+1))
		drain(t, pub)
		require.NoError(t, sub.Close())
	}
}

func TestOutbox_HandsRefusedMessagesToOnFailure(t *testing.T) {
	h := newHouse(t, buffstreams.ManagerConfig{})
	refused := make(chan string, 1)
	pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{
		Outbox: openOutbox(t, t.TempDir()), Marshaler: buffstreams.RawMarshaler{},
		OnFailure: func(_ string, encoded []byte, _ error) { refused <- string(encoded) },
	}, nil)
	require.NoError(t, err)
	messages := subscribe(t, h.newSubscriber(t, nil), h.topic("a"))
	require.NoError(t, pub.Publish(h.topic("a"), newMessage("\xff\xff"), newMessage("")))
	require.Equal(t, "\xff\xff", <-refused)
	receiveAcked(t, messages, 1)
	drain(t, pub)
	require.NoError(t, pub.Close())
}
