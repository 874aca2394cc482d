package tests

import (
	"context"
	"io"
	"net"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
	"github.com/buffstreams/watermill-buffstreams/route"
)

// TestPubSub_OverTLS: its own publisher dials with TLS what it listens at with TLS, by the name that the certificate has.
func TestPubSub_OverTLS(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "localhost"} {
		t.Run(host, func(t *testing.T) {
			server, client := testkit.SelfSignedTLSFor(t, "localhost")
			if host == "127.0.0.1" {
				server, client = testkit.SelfSignedTLS(t)
			}
			ps, err := buffstreams.NewPubSub(buffstreams.PubSubConfig{
				Address:    "tls://" + host + ":0",
				Manager:    buffstreams.ManagerConfig{Acked: buffstreams.AckedConfig{ServerTLS: server, ClientTLS: client}},
				Publisher:  buffstreams.PublisherConfig{PublishTimeout: patience},
				Subscriber: buffstreams.SubscriberConfig{ConsumerGroup: "g"},
			}, nil)
			require.NoError(t, err)
			messages, err := ps.Subscribe(t.Context(), "orders")
			require.NoError(t, err)
			require.NoError(t, ps.Publish("orders", newMessage("x")))
			receive(t, messages).Ack()
			require.NoError(t, ps.Close())
			require.Regexp(t, "^tls://"+host+":[0-9]+$", ps.Address())
		})
	}
}

// TestSubscriber_WiresDoNotShareAnAddress, nor do plain ones whose frames have other headers: the second Subscribe says so,
// and the first goes on.
func TestSubscriber_WiresDoNotShareAnAddress(t *testing.T) {
	plain := func(limit int) func(*buffstreams.SubscriberConfig) {
		return func(c *buffstreams.SubscriberConfig) {
			c.Wire, c.MaxMessageSize = buffstreams.WireBuffStreams, limit
		}
	}
	for name, pair := range map[string][2]func(*buffstreams.SubscriberConfig){
		"plain at an acked one": {nil, plain(0)},
		"acked at a plain one":  {plain(0), nil},
		"plain with two limits": {plain(0), plain(1 << 20)},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t, buffstreams.ManagerConfig{})
			subscribe(t, h.newSubscriber(t, pair[0]), h.address)
			_, err := h.newSubscriber(t, pair[1]).Subscribe(t.Context(), h.address)
			require.ErrorContains(t, err, "this Manager listens")
			subscribe(t, h.newSubscriber(t, pair[0]), h.address)
		})
	}
	h := newHouse(t, buffstreams.ManagerConfig{})
	subscribe(t, h.newSubscriber(t, plain(0)), h.address)
	subscribe(t, h.newSubscriber(t, plain(4096)), h.address) // the same, spelled out
}

// TestManager_HearsOfWhatAnEphemeralPublisherDoesNotAnswerFor: one that has no OnFailure is told what to drop, but takes no
// refusal of another publisher's message from the Manager.
func TestManager_HearsOfWhatAnEphemeralPublisherDoesNotAnswerFor(t *testing.T) {
	h := newHouse(t, buffstreams.ManagerConfig{})
	messages := subscribe(t, h.newSubscriber(t, func(c *buffstreams.SubscriberConfig) { c.MaxAttempts = 1 }), h.topic("a"))
	var refused failures
	m, err := buffstreams.NewManager(buffstreams.ManagerConfig{OnFailure: refused.add, Acked: quick(buffstreams.AckedConfig{})})
	require.NoError(t, err)
	replies, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{Manager: m, Ephemeral: true}, nil)
	require.NoError(t, err)
	require.NoError(t, replies.Publish(h.topic("gone"), newMessage("late")), "it is dropped")
	require.Eventually(t, func() bool { return replies.Stats().Dropped == 1 }, patience, 10*time.Millisecond)
	pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{Manager: m}, nil)
	require.NoError(t, err)
	require.NoError(t, pub.Publish(h.topic("a"), newMessage("x")))
	require.NoError(t, pub.Close())
	receive(t, messages).Nack()
	require.Eventually(t, func() bool { return len(refused.got()) > 0 }, patience, time.Millisecond)
	require.NoError(t, replies.Close())
	require.NoError(t, m.Close())
	require.Equal(t, []string{"x"}, refused.got())
	require.ErrorIs(t, refused.errs[0], buffstreams.ErrHandlingFailed)
}

// TestEphemeral_AGroupOutlastsItsMembers, whichever of both subscribes first: the topic is not one that ends with its
// last subscription while a Subscriber uses it that has not asked for that.
func TestEphemeral_AGroupOutlastsItsMembers(t *testing.T) {
	for _, first := range []string{"the group", "the ephemeral one", "the group, initialized", "the ephemeral one, then the group, initialized"} {
		t.Run(first, func(t *testing.T) {
			h := newHouse(t, buffstreams.ManagerConfig{})
			lasting, passing := h.newSubscriber(t, nil), h.newSubscriber(t, ephemeral)
			ctx, cancel := context.WithCancel(t.Context())
			pass := func() <-chan *message.Message {
				messages, err := passing.Subscribe(ctx, h.topic("a"))
				require.NoError(t, err)
				return messages
			}
			var passed <-chan *message.Message
			switch first {
			case "the group":
				members, leave := context.WithCancel(t.Context())
				gone, err := lasting.Subscribe(members, h.topic("a"))
				require.NoError(t, err)
				passed = pass()
				leave()
				requireClosed(t, gone)
			case "the ephemeral one":
				passed = pass()
				members, leave := context.WithCancel(t.Context())
				gone, err := lasting.Subscribe(members, h.topic("a"))
				require.NoError(t, err)
				leave()
				requireClosed(t, gone)
			case "the group, initialized":
				require.NoError(t, lasting.SubscribeInitialize(h.topic("a")))
				passed = pass()
			default:
				passed = pass()
				require.NoError(t, lasting.SubscribeInitialize(h.topic("a")))
			}
			cancel()
			requireClosed(t, passed)
			require.NoError(t, h.newPublisher(t, nil).Publish(h.topic("a"), newMessages(3)...))
			require.Equal(t, []string{"0", "1", "2"}, receiveAcked(t, subscribe(t, lasting, h.topic("a")), 3))
		})
	}
}

func requireClosed(t *testing.T, messages <-chan *message.Message) {
	t.Helper()
	select {
	case _, open := <-messages:
		require.False(t, open)
	case <-time.After(patience):
		require.Fail(t, "the channel is open")
	}
}

// TestPublisher_ACallbackThatEndsItsGoroutine costs what it was called for, and no more: FailNow of a test does that.
func TestPublisher_ACallbackThatEndsItsGoroutine(t *testing.T) {
	h := newHouse(t, buffstreams.ManagerConfig{})
	messages := subscribe(t, h.newSubscriber(t, func(c *buffstreams.SubscriberConfig) { c.MaxAttempts = 1 }), h.topic("a"))
	var refused failures
	var asked atomic.Int32
	pub := h.newPublisher(t, func(c *buffstreams.PublisherConfig) {
		c.OnFailure = func(topic string, encoded []byte, err error) {
			refused.add(topic, encoded, err)
			runtime.Goexit()
		}
		c.Resolver = route.Func(func(context.Context, string) (route.Route, error) {
			if asked.Add(1) == 1 {
				runtime.Goexit()
			}
			return route.Route{Addresses: []string{h.address}, Name: "a"}, nil
		})
	})
	require.Error(t, pub.Publish("a", newMessage("x")))
	require.NoError(t, pub.Publish("a", newMessages(3)...))
	for range 3 {
		receive(t, messages).Nack()
	}
	require.NoError(t, pub.Drain(t.Context()))
	require.Equal(t, []string{"0", "1", "2"}, refused.got())
}

// TestOutbox_RouteOfAnotherOfItsPublishers: the one that delivers has no Resolver.
func TestOutbox_RouteOfAnotherOfItsPublishers(t *testing.T) {
	ob, a, b := openOutbox(t, t.TempDir()), freeAddress(t), freeAddress(t)
	atB := handing(t, b)
	first := stored(t, ob, nil)
	require.NoError(t, first.Publish(a+"/other", newMessage("x")))
	require.Eventually(t, func() bool { return len(first.Stats().Topics) > 0 }, patience, time.Millisecond)
	pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{
		Outbox: ob, Resolver: route.Static{"orders": {Addresses: []string{a, b}}}, CloseTimeout: time.Second,
	}, nil)
	require.NoError(t, err)
	require.NoError(t, pub.Publish("orders", newMessages(3)...))
	require.Equal(t, []string{"0", "1", "2"}, receiveAcked(t, atB, 3))
	require.NoError(t, pub.Close())
}

// plainly is a publisher on the plain wire.
func plainly(t *testing.T, change func(*buffstreams.PublisherConfig)) *buffstreams.Publisher {
	cfg := buffstreams.PublisherConfig{Wire: buffstreams.WireBuffStreams, Confirm: buffstreams.ConfirmEnqueued, PublishTimeout: patience, CloseTimeout: patience}
	change(&cfg)
	pub, err := buffstreams.NewPublisher(cfg, nil)
	require.NoError(t, err)
	t.Cleanup(func() { _ = pub.Close() })
	return pub
}

// TestPlainPublisher_PassesAPeerThatIsSilent, and waits for it no more than once while it is.
func TestPlainPublisher_PassesAPeerThatIsSilent(t *testing.T) {
	h := newHouse(t, buffstreams.ManagerConfig{})
	messages := subscribe(t, h.newSubscriber(t, func(c *buffstreams.SubscriberConfig) { c.Wire = buffstreams.WireBuffStreams }), h.address)
	const silent = "127.0.0.1:1"
	pub := plainly(t, func(c *buffstreams.PublisherConfig) {
		c.ManagerConfig.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			if address == silent {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return new(net.Dialer).DialContext(ctx, network, address)
		}
		c.Resolver = route.Static{"x": {Addresses: []string{silent, h.address}}}
	})
	began := time.Now()
	for i := range 100 {
		require.NoError(t, pub.Publish("x", newMessage(strconv.Itoa(i))))
		require.Equal(t, []string{strconv.Itoa(i)}, receiveAcked(t, messages, 1))
		require.Less(t, time.Since(began), patience, "a hundred times the first wait is more")
	}
}

// TestPlainPublisher_LimitsAtOnePeer of a Manager are the same: the framing depends on them.
func TestPlainPublisher_LimitsAtOnePeer(t *testing.T) {
	h := newHouse(t, buffstreams.ManagerConfig{})
	messages := subscribe(t, h.newSubscriber(t, func(c *buffstreams.SubscriberConfig) { c.Wire = buffstreams.WireBuffStreams }), h.address)
	m, _ := newPeer(t, buffstreams.ManagerConfig{})
	large := plainly(t, func(c *buffstreams.PublisherConfig) { c.Manager, c.MaxMessageSize = m, 1<<20 })
	right := plainly(t, func(c *buffstreams.PublisherConfig) { c.Manager = m })
	require.NoError(t, right.Publish(h.address, newMessage("x")))
	require.ErrorContains(t, large.Publish(h.address, newMessage("y")), "MaxMessageSize")
	require.Equal(t, []string{"x"}, receiveAcked(t, messages, 1))
}

// TestManager_PlainPeersComeAndGo: a writer ends with the last use of its peer, when all is written, and begins again.
func TestManager_PlainPeersComeAndGo(t *testing.T) {
	h := newHouse(t, buffstreams.ManagerConfig{})
	messages := subscribe(t, h.newSubscriber(t, func(c *buffstreams.SubscriberConfig) { c.Wire = buffstreams.WireBuffStreams }), h.address)
	m, _ := newPeer(t, buffstreams.ManagerConfig{})
	peers := func() int { return len(m.Stats().Addresses) }
	for round := range 3 {
		one := plainly(t, func(c *buffstreams.PublisherConfig) { c.Manager = m })
		two := plainly(t, func(c *buffstreams.PublisherConfig) { c.Manager = m })
		require.NoError(t, one.Publish(h.address, newMessage("1")))
		require.NoError(t, two.Publish(h.address, newMessage("2")))
		require.NoError(t, one.Close())
		require.NoError(t, two.Publish(h.address, newMessage("3")), "it has the writer yet")
		require.Len(t, receiveAcked(t, messages, 3), 3)
		if round == 1 {
			require.NoError(t, two.Close())
			continue // the next one comes while the writer closes
		}
		require.Eventually(t, func() bool { return peers() == 1 }, patience, 10*time.Millisecond, "Stats are kept for a second")
		require.NoError(t, two.Close())
		require.Eventually(t, func() bool { return peers() == 0 }, patience, 10*time.Millisecond)
	}
}

// TestManager_KeepsWhatAPlainPeerHasNotTaken of a publisher that is closed, or whose route has left the peer.
func TestManager_KeepsWhatAPlainPeerHasNotTaken(t *testing.T) {
	a, b := freeAddress(t), freeAddress(t)
	ln, err := net.Listen("tcp", a)
	require.NoError(t, err)
	defer func() { _ = ln.Close() }()
	routes := &watched{route: route.Route{Addresses: []string{a}}}
	m, _ := newPeer(t, buffstreams.ManagerConfig{})
	pub := plainly(t, func(c *buffstreams.PublisherConfig) {
		c.Manager, c.CloseTimeout, c.PublishTimeout = m, 50*time.Millisecond, 50*time.Millisecond
		c.Resolver = routes
	})
	written := 0
	for large := newMessage(strings.Repeat("x", 4000)); pub.Publish("x", large) == nil; { // the peer reads nothing
		written++
	}
	other, err := net.Listen("tcp", b)
	require.NoError(t, err)
	defer func() { _ = other.Close() }()
	require.Eventually(t, routes.isWatched, patience, time.Millisecond)
	routes.set(route.Route{Addresses: []string{b}})
	require.NoError(t, pub.Publish("x", newMessage("y")))
	require.Error(t, pub.Close(), "not all is written")
	conn, err := ln.Accept()
	require.NoError(t, err)
	read := make(chan int64, 1)
	go func() { // ends with the connection
		n, _ := io.Copy(io.Discard, conn)
		read <- n
	}()
	require.NoError(t, m.Close())
	require.EqualValues(t, written*(4000+3), <-read)
}

// TestPublisher_FlushIsNotNilForWhatItsManagerLeft, nor for what it has left itself.
func TestPublisher_FlushIsNotNilForWhatItsManagerLeft(t *testing.T) {
	m, err := buffstreams.NewManager(buffstreams.ManagerConfig{CloseTimeout: 10 * time.Millisecond})
	require.NoError(t, err)
	pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{
		Manager: m, Confirm: buffstreams.ConfirmEnqueued, CloseTimeout: 10 * time.Millisecond,
	}, nil)
	require.NoError(t, err)
	require.NoError(t, pub.Publish(freeAddress(t)+"/a", newMessages(3)...))
	requireUndelivered(t, m.Close(), "a", 3)
	require.ErrorIs(t, pub.Flush(t.Context()), buffstreams.ErrManagerClosed)
	_ = pub.Close()
	require.ErrorIs(t, pub.Flush(t.Context()), buffstreams.ErrPublisherClosed)
}

// TestPubSub_HasOneWire: its ends would not understand each other, and the plain one would not notice.
func TestPubSub_HasOneWire(t *testing.T) {
	_, err := buffstreams.NewPubSub(buffstreams.PubSubConfig{
		Publisher: buffstreams.PublisherConfig{Wire: buffstreams.WireBuffStreams, Confirm: buffstreams.ConfirmEnqueued},
	}, nil)
	require.ErrorContains(t, err, "PubSubConfig.Publisher.Wire")
}
