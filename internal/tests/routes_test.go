package tests

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/message/router/middleware"
	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
	"github.com/buffstreams/watermill-buffstreams/route"
)

// listeners starts subscribers at addresses of their own and returns their channels for one logical topic.
func listeners(t *testing.T, n int, topic string) (addresses []string, channels []<-chan *message.Message) {
	for range n {
		ps, err := buffstreams.NewPubSub(buffstreams.PubSubConfig{}, nil)
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, ps.Close()) })
		messages, err := ps.Subscribe(context.Background(), topic)
		require.NoError(t, err)
		addresses, channels = append(addresses, ps.Address()), append(channels, messages)
	}
	return addresses, channels
}

func routed(t *testing.T, r route.Route) *buffstreams.Publisher {
	pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{
		Resolver:      route.Static{"orders": r},
		ManagerConfig: buffstreams.ManagerConfig{Acked: quick(buffstreams.AckedConfig{})},
	}, nil)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, pub.Close()) })
	return pub
}

// connect publishes a message, which one of two channels gets, and waits until all addresses are connected.
func connect(t *testing.T, pub *buffstreams.Publisher, channels []<-chan *message.Message) {
	t.Helper()
	require.NoError(t, pub.Publish("orders", newMessage("first")))
	select {
	case msg := <-channels[0]:
		msg.Ack()
	case msg := <-channels[1]:
		msg.Ack()
	case <-time.After(patience):
		require.Fail(t, "no message")
	}
	awaitReady(t, pub)
}

func TestRoute(t *testing.T) {
	t.Run("round robin shares", func(t *testing.T) {
		addresses, channels := listeners(t, 2, "orders")
		pub := routed(t, route.Route{Addresses: addresses, Policy: route.RoundRobin})
		connect(t, pub, channels)
		require.NoError(t, pub.Publish("orders", newMessages(4)...))
		require.ElementsMatch(t, [][]string{{"0", "2"}, {"1", "3"}}, [][]string{receiveAcked(t, channels[0], 2), receiveAcked(t, channels[1], 2)})
	})
	t.Run("all get every message", func(t *testing.T) {
		addresses, channels := listeners(t, 2, "orders")
		pub := routed(t, route.Route{Addresses: addresses, Policy: route.All})
		require.NoError(t, pub.Publish("orders", newMessages(3)...))
		for _, c := range channels {
			require.Equal(t, []string{"0", "1", "2"}, receiveAcked(t, c, 3))
		}
	})
	t.Run("hash keeps a key together and in order", func(t *testing.T) {
		addresses, channels := listeners(t, 2, "orders")
		pub := routed(t, route.Route{Addresses: addresses, Policy: route.Hash, HashKey: "customer"})
		connect(t, pub, channels)
		const customers, count = 32, 160
		for i := range count {
			msg := newMessage(fmt.Sprint(i))
			msg.Metadata.Set("customer", fmt.Sprint(i%customers))
			require.NoError(t, pub.Publish("orders", msg))
		}
		home, last := map[string]int{}, map[string]string{}
		used := map[int]bool{}
		for range count {
			var msg *message.Message
			var at int
			select {
			case msg = <-channels[0]:
			case msg = <-channels[1]:
				at = 1
			case <-time.After(patience):
				require.Fail(t, "no message")
			}
			customer := msg.Metadata.Get("customer")
			if before, seen := home[customer]; seen {
				require.Equal(t, before, at)
			}
			require.Less(t, fmt.Sprintf("%3s", last[customer]), fmt.Sprintf("%3s", msg.Payload))
			home[customer], last[customer], used[at] = at, string(msg.Payload), true
			msg.Ack()
		}
		require.Len(t, home, customers)
		require.Len(t, used, 2, "both addresses have keys") // but for one run in two thousand million
	})
	t.Run("failover goes on with the next", func(t *testing.T) {
		addresses, channels := listeners(t, 1, "orders")
		pub := routed(t, route.Route{Addresses: []string{addresses[0], freeAddress(t)}, Policy: route.Failover})
		require.NoError(t, pub.Publish("orders", newMessage("x")))
		receiveAcked(t, channels[0], 1)
	})
}

func TestRoute_AllReportsTheAddressThatIsAway(t *testing.T) {
	t.Parallel()
	addresses, channels := listeners(t, 1, "orders")
	away := freeAddress(t)
	pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{
		Resolver:       route.Static{"orders": {Addresses: []string{away, addresses[0]}, Policy: route.All}},
		PublishTimeout: 4 * time.Second, CloseTimeout: time.Millisecond, // in which the other confirms
	}, nil)
	require.NoError(t, err)
	err = pub.Publish("orders", newMessages(3)...)
	var failed *buffstreams.PublishError
	require.ErrorAs(t, err, &failed)
	require.ErrorContains(t, err, away)
	require.NotContains(t, err.Error(), addresses[0])
	require.Len(t, failed.Unknown, 3)
	require.Equal(t, []string{"0", "1", "2"}, receiveAcked(t, channels[0], 3))
	require.ErrorIs(t, pub.Close(), buffstreams.ErrUndelivered)
}

func TestPubSub_ReplacesGoChannel(t *testing.T) {
	ps, err := buffstreams.NewPubSub(buffstreams.PubSubConfig{}, nil)
	require.NoError(t, err)
	messages, err := ps.Subscribe(context.Background(), "orders")
	require.NoError(t, err)
	require.NoError(t, ps.Publish("orders", newMessages(10)...))
	require.Equal(t, payloads(newMessages(10)), receiveAcked(t, messages, 10))
	require.NoError(t, ps.Close())
	require.NoError(t, ps.Close())
	_, open := <-messages
	require.False(t, open)
}

// TestPubSub_CloseEndsAPublishThatWaits, because there is no subscription.
func TestPubSub_CloseEndsAPublishThatWaits(t *testing.T) {
	t.Parallel()
	dialled := make(chan struct{})
	dials := sync.OnceFunc(func() { close(dialled) })
	ps, err := buffstreams.NewPubSub(buffstreams.PubSubConfig{
		Manager: buffstreams.ManagerConfig{CloseTimeout: 50 * time.Millisecond, Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			dials()
			return (&net.Dialer{}).DialContext(ctx, network, address)
		}},
		Publisher: buffstreams.PublisherConfig{CloseTimeout: 50 * time.Millisecond, PublishTimeout: time.Hour},
	}, nil)
	require.NoError(t, err)
	waiting := later(func() error { return ps.Publish("orders", newMessage("x")) })
	<-dialled
	require.ErrorIs(t, ps.Close(), buffstreams.ErrUndelivered)
	require.ErrorIs(t, requireResult(t, waiting), buffstreams.ErrPublisherClosed)
}

// TestUnixSocket, whose file a predecessor that was killed has left behind.
func TestUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.sock")
	killed, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	require.NoError(t, err)
	killed.SetUnlinkOnClose(false)
	require.NoError(t, killed.Close())
	topic := "unix://" + path + "#orders"
	sub, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{}, nil)
	require.NoError(t, err)
	messages := subscribe(t, sub, topic)
	pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{}, nil)
	require.NoError(t, err)
	require.NoError(t, pub.Publish(topic, newMessage("x")))
	receiveAcked(t, messages, 1)
	require.NoError(t, pub.Close())
	require.NoError(t, sub.Close())
}

// TestPubSub_OverAUnixSocket, at which another process can publish too.
func TestPubSub_OverAUnixSocket(t *testing.T) {
	ps, err := buffstreams.NewPubSub(buffstreams.PubSubConfig{Address: "unix://" + filepath.Join(t.TempDir(), "s.sock")}, nil)
	require.NoError(t, err)
	messages := subscribe(t, ps.Subscriber, "orders")
	require.NoError(t, ps.Publish("orders", newMessage("x")))
	other, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{}, nil)
	require.NoError(t, err)
	require.NoError(t, other.Publish(ps.Address()+"#orders", newMessage("y")))
	require.Equal(t, []string{"x", "y"}, receiveAcked(t, messages, 2))
	require.NoError(t, other.Close())
	require.NoError(t, ps.Close())
}

func TestTLS(t *testing.T) {
	server, client := testkit.SelfSignedTLS(t)
	h := newHouse(t, buffstreams.ManagerConfig{Acked: buffstreams.AckedConfig{ServerTLS: server, ClientTLS: client}})
	topic := "tls://" + h.topic("orders")
	messages := subscribe(t, h.newSubscriber(t, nil), topic)
	require.NoError(t, h.newPublisher(t, nil).Publish(topic, newMessages(100)...))
	require.Equal(t, payloads(newMessages(100)), receiveAcked(t, messages, 100))

	plain, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{
		PublishTimeout: 300 * time.Millisecond, CloseTimeout: time.Millisecond,
		ManagerConfig: buffstreams.ManagerConfig{Acked: quick(buffstreams.AckedConfig{})},
	}, nil)
	require.NoError(t, err)
	require.ErrorIs(t, plain.Publish(h.topic("orders"), newMessage("in the clear")), buffstreams.ErrTimeout)
	require.ErrorIs(t, plain.Close(), buffstreams.ErrUndelivered)
}

func TestPlainWire_BothWays(t *testing.T) {
	h := newHouse(t, buffstreams.ManagerConfig{})
	h.publisher.Wire, h.publisher.Confirm = buffstreams.WireBuffStreams, buffstreams.ConfirmEnqueued
	h.subscriber.Wire = buffstreams.WireBuffStreams
	messages := subscribe(t, h.newSubscriber(t, nil), h.address)
	pub := h.newPublisher(t, nil)
	msgs := newMessages(50_000) // more than a window: the peer is held back by TCP
	result := later(func() error {
		if err := pub.Publish(h.address, msgs...); err != nil {
			return err
		}
		return pub.Flush(context.Background())
	})
	require.Equal(t, payloads(msgs), receiveAcked(t, messages, len(msgs)))
	require.NoError(t, requireResult(t, result))
	require.ErrorIs(t, pub.Publish(h.topic("named"), newMessage("x")), buffstreams.ErrBadTopic)
	require.ErrorIs(t, pub.Publish(h.address, newMessage(string(make([]byte, 4097)))), buffstreams.ErrTooLarge)
}

func TestRouter_RetriesAndPoisons(t *testing.T) {
	h := newHouse(t, buffstreams.ManagerConfig{})
	pub, sub := h.newPublisher(t, nil), h.newSubscriber(t, nil)
	poison, err := middleware.PoisonQueue(pub, h.topic("poison"))
	require.NoError(t, err)
	router, err := message.NewRouter(message.RouterConfig{}, watermill.NopLogger{})
	require.NoError(t, err)
	// Timeout leaves a context that is cancelled on the message that the poison queue publishes.
	router.AddMiddleware(poison, middleware.Timeout(patience), middleware.Retry{MaxRetries: 2, InitialInterval: time.Millisecond}.Middleware)
	attempts := 0
	router.AddConsumerHandler("fails", h.topic("work"), sub, func(msg *message.Message) error {
		if string(msg.Payload) == "bad" {
			attempts++
			return fmt.Errorf("bad message")
		}
		return nil
	})
	poisoned := subscribe(t, sub, h.topic("poison"))
	running := later(func() error { return router.Run(context.Background()) })
	<-router.Running()
	require.NoError(t, pub.Publish(h.topic("work"), newMessage("good"), newMessage("bad"), newMessage("good")))
	msg := receive(t, poisoned)
	require.Equal(t, "bad message", msg.Metadata.Get(middleware.ReasonForPoisonedKey))
	msg.Ack()
	require.Equal(t, 3, attempts)
	require.NoError(t, router.Close())
	require.NoError(t, requireResult(t, running))
}

// TestPlainWire_SubscriberHandlesWhatItHasRead: plain peers keep nothing, so Close must not drop what was received.
func TestPlainWire_SubscriberHandlesWhatItHasRead(t *testing.T) {
	address := freeAddress(t)
	sub, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{Wire: buffstreams.WireBuffStreams}, nil)
	require.NoError(t, err)
	messages := subscribe(t, sub, address)
	pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{
		Wire: buffstreams.WireBuffStreams, Confirm: buffstreams.ConfirmEnqueued,
	}, nil)
	require.NoError(t, err)
	msgs := newMessages(3000)
	require.NoError(t, pub.Publish(address, msgs...))
	require.NoError(t, pub.Close())
	require.Equal(t, "0", receiveAcked(t, messages, 1)[0])
	closed := later(sub.Close)
	require.Equal(t, payloads(msgs[1:]), receiveAcked(t, messages, 2999))
	require.NoError(t, requireResult(t, closed))
}
