package tests

import (
	"bytes"
	"context"
	"errors"
	"net"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/internal/wire"
	"github.com/buffstreams/watermill-buffstreams/storage/outbox"
)

// only allows each principal its own topic.
func only(allowed map[string]string) func(context.Context, buffstreams.Access) error {
	return func(_ context.Context, a buffstreams.Access) error {
		if topic, known := allowed[a.Principal]; a.Action == buffstreams.ActionSubscribe || known && topic == a.Topic {
			return nil
		}
		return errors.New("not on the list")
	}
}

func TestAuthorize_ForbiddenTopicFailsAtOnceAndHoldsUpNoOther(t *testing.T) {
	h := newHouse(t, buffstreams.ManagerConfig{Acked: buffstreams.AckedConfig{
		Authenticate: buffstreams.Tokens(map[string]string{"o": "orders", "b": "billing"}),
		Authorize:    only(map[string]string{"orders": "orders", "billing": "billing"}),
	}})
	sub := h.newSubscriber(t, nil)
	orders, billing := subscribe(t, sub, h.topic("orders")), subscribe(t, sub, h.topic("billing"))
	lost := make(chan string, 10)
	pub := sender(t, bearer("o"), func(c *buffstreams.PublisherConfig) {
		c.OnFailure = func(topic string, encoded []byte, err error) {
			require.ErrorIs(t, err, buffstreams.ErrForbidden)
			require.Contains(t, string(encoded), "stolen")
			lost <- topic
		}
	})
	require.NoError(t, pub.Publish(h.topic("orders"), newMessage("mine")))
	err := pub.Publish(h.topic("billing"), newMessage("stolen"))
	require.ErrorIs(t, err, buffstreams.ErrForbidden)
	require.ErrorContains(t, err, "AckedConfig.Authorize")
	require.Equal(t, "billing", <-lost, "the failure hook is told")
	require.NoError(t, pub.Publish(h.topic("orders"), newMessage("mine too")))
	require.Equal(t, []string{"mine", "mine too"}, receiveAcked(t, orders, 2))
	require.NoError(t, sender(t, bearer("b"), nil).Publish(h.topic("billing"), newMessage("a bill")))
	require.Equal(t, []string{"a bill"}, receiveAcked(t, billing, 1))

	p := dialPeer(t, h.address)
	p.send(&wire.Hello{Version: 1, MaxFrame: leastFrame, Token: []byte("o")})
	take[*wire.Welcome](p)
	p.send(opening(func(o *wire.Open) { o.Topic = "billing" }))
	outcome, code := documentedFault(t, "topic that Authorize refuses")
	require.Equal(t, "Opened", outcome)
	require.Equal(t, code, take[*wire.Opened](p).Code)
	p.opens(opening(func(o *wire.Open) { o.Topic = "orders" }))
}

func TestAuthorize_WhatAnOutboxMayNotDeliverStaysInIt(t *testing.T) {
	var open atomic.Bool
	asked := make(chan buffstreams.Access, 10)
	h := newHouse(t, buffstreams.ManagerConfig{Acked: buffstreams.AckedConfig{Authorize: func(_ context.Context, a buffstreams.Access) error {
		if a.Action == buffstreams.ActionPublish && !open.Load() {
			asked <- a
			return errors.New("not yet")
		}
		return nil
	}}})
	messages := subscribe(t, h.newSubscriber(t, nil), h.topic("a"))
	dir := t.TempDir()
	ob, err := outbox.Open(outbox.Config{Dir: dir})
	require.NoError(t, err)
	pub := stored(t, ob, nil)
	require.NoError(t, pub.Publish(h.topic("a"), newMessages(10)...))
	require.Equal(t, "a", (<-asked).Topic)
	require.NoError(t, pub.Close())
	require.NoError(t, ob.Close())
	open.Store(true)
	pub = stored(t, openOutbox(t, dir), nil)
	require.Equal(t, payloads(newMessages(10)), receiveAcked(t, messages, 10))
	drain(t, pub)
}

func TestAuthorize_Subscribe(t *testing.T) {
	h := newHouse(t, buffstreams.ManagerConfig{Acked: buffstreams.AckedConfig{Authorize: func(_ context.Context, a buffstreams.Access) error {
		if a.Action == buffstreams.ActionSubscribe && a.Topic != "mine" {
			return errors.New("not mine")
		}
		return nil
	}}})
	sub := h.newSubscriber(t, nil)
	_, err := sub.Subscribe(context.Background(), h.topic("theirs"))
	require.ErrorIs(t, err, buffstreams.ErrForbidden)
	require.ErrorContains(t, err, "not mine")
	require.ErrorIs(t, sub.SubscribeInitialize(h.topic("theirs")), buffstreams.ErrForbidden)
	messages := subscribe(t, sub, h.topic("mine"))
	require.NoError(t, h.newPublisher(t, nil).Publish(h.topic("mine"), newMessage("x")))
	receiveAcked(t, messages, 1)
}

func TestPublisherID_BelongsToItsPrincipal(t *testing.T) {
	h := newHouse(t, buffstreams.ManagerConfig{Acked: buffstreams.AckedConfig{
		Authenticate: buffstreams.Tokens(map[string]string{"a": "alice", "b": "bob"}),
	}})
	messages := subscribe(t, h.newSubscriber(t, nil), h.topic("a"))
	greet := func(token string) *wirePeer {
		p := dialPeer(t, h.address)
		p.send(&wire.Hello{Version: 1, MaxFrame: leastFrame, Token: []byte(token)})
		take[*wire.Welcome](p)
		return p
	}
	alice := greet("a").opens(opening(nil)).credited()
	bob := greet("b") // knows her id and secret
	outcome, code := documentedFault(t, "publisher id of another principal")
	require.Equal(t, "Opened", outcome)
	for _, epoch := range []uint64{5, 6} {
		bob.send(opening(func(o *wire.Open) { o.Epoch = epoch }))
		require.Equal(t, code, take[*wire.Opened](bob).Code)
	}
	bob.opens(opening(func(o *wire.Open) { o.Publisher = bytes.Repeat([]byte{9}, 16) })) // one of his own is all right
	alice.publish(1, false, envelope(t, "1"))
	receivePayload(t, messages, "1").Ack()
	alice.until(func() bool { return alice.settled[1] })
}

// A receiver must not learn what it could pose with as its sender elsewhere.
func TestPublisherID_OutboxHasOneForEachDestination(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	known := map[string]*wire.Open{}
	var listeners []net.Listener
	var topics []string
	for range 2 {
		ln, topic := listenPeer(t)
		listeners, topics = append(listeners, ln), append(topics, topic)
	}
	for range 2 { // and they stay the same across restarts
		ob, err := outbox.Open(outbox.Config{Dir: dir})
		require.NoError(t, err)
		pub := stored(t, ob, nil)
		for i, topic := range topics {
			require.NoError(t, pub.Publish(topic, newMessage("x")))
			open := acceptDesk(t, listeners[i]).open
			id, secret := ob.ID(), ob.Secret()
			require.NotEqual(t, id[:], open.Publisher)
			require.NotEqual(t, secret[:], open.Secret)
			if before := known[topic]; before != nil {
				require.Equal(t, before.Publisher, open.Publisher)
				require.Equal(t, before.Secret, open.Secret)
				require.Greater(t, open.Epoch, before.Epoch)
			}
			known[topic] = open
		}
		require.NotEqual(t, known[topics[0]].Publisher, known[topics[1]].Publisher)
		require.NotEqual(t, known[topics[0]].Secret, known[topics[1]].Secret)
		require.NoError(t, pub.Close())
		require.NoError(t, ob.Close())
	}
}
