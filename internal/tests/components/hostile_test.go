package components

import (
	"context"
	"runtime"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/components/cqrs"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/message/router/middleware"
	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/cqrsx"
	"github.com/buffstreams/watermill-buffstreams/route"
	"github.com/buffstreams/watermill-buffstreams/storage/outbox"
)

// A handler publishes to its own topic while others have filled the window. Without an Outbox its Publish waits for room that
// only its own ack can make, until PublishTimeout, again and again; with one it goes on.
func TestRouter_OwnTopicWithAFullWindow(t *testing.T) {
	const count = 200
	small := buffstreams.ManagerConfig{Acked: buffstreams.AckedConfig{WindowMessages: 16}}
	listens, address := newListening(t, small)
	p := &pair{listens: listens, sends: newManager(t, small), address: address}
	box, err := outbox.Open(outbox.Config{Dir: t.TempDir()})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, box.Close()) })
	own, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{Manager: listens, Resolver: route.To(address), Outbox: box}, nil)
	require.NoError(t, err)
	t.Cleanup(func() { _ = own.Close() })
	var got tally
	r := newRouter(t)
	sub := p.subscriber(t, "g", nil)
	r.AddConsumerHandler("h", "orders", sub, func(m *message.Message) error {
		if m.Metadata.Get("again") == "" {
			next := newMessage(string(m.Payload))
			next.Metadata.Set("again", "yes")
			if err := own.Publish("orders", next); err != nil {
				return err
			}
		}
		got.add(string(m.Payload))
		return nil
	})
	require.NoError(t, sub.SubscribeInitialize("orders"))
	flooded := make(chan error, 1)
	pub := p.publisher(t)
	go func() { flooded <- pub.Publish("orders", newMessages(count)...) }() // Ends when there is room for all.
	run(t, r)
	require.NoError(t, receive(t, flooded))
	require.ElementsMatch(t, append(numbers(count), numbers(count)...), got.await(t, 2*count))
}

// The poison queue's topic has no subscription yet: what was poisoned meanwhile comes when it has one.
func TestPoisonQueue_HasNoSubscriptionYet(t *testing.T) {
	p, grave := newPair(t), newPair(t)
	_, err := grave.subscriber(t, "o", nil).Subscribe(context.Background(), "other") // it listens, without the topic
	require.NoError(t, err)
	impatient, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{
		Manager: p.listens, Resolver: route.To(grave.address), PublishTimeout: 100 * time.Millisecond,
	}, nil)
	require.NoError(t, err)
	t.Cleanup(func() { _ = impatient.Close() })
	poison, err := middleware.PoisonQueue(impatient, "poison")
	require.NoError(t, err)
	var got tally
	pub := behind(t, p, func(m *message.Message) error {
		if got.add(string(m.Payload)); string(m.Payload) == "0" {
			return errWanted
		}
		return nil
	}, poison)
	require.NoError(t, pub.Publish("orders", newMessages(3)...))
	got.await(t, 3)
	dead, err := grave.subscriber(t, "d", nil).Subscribe(context.Background(), "poison")
	require.NoError(t, err)
	m := receive(t, dead)
	m.Ack()
	require.Equal(t, "0", string(m.Payload))
	require.Eventually(t, func() bool { return got.count("1") == 1 && got.count("2") == 1 }, patience, time.Millisecond)
}

// Names of events may look like addresses, paths or URLs.
func TestCQRS_NamesLikeAddresses(t *testing.T) {
	p := newPair(t)
	r := newRouter(t)
	var got tally
	cfg := cqrsx.EventProcessorConfig(p.at(), nil, nil)
	names := []string{"orders:created", "orders:1", "tenant:42/orders", "a/b:1", "orders.v1:80", "with space", "日本"}
	next := 0
	cfg.GenerateSubscribeTopic = func(cqrs.EventProcessorGenerateSubscribeTopicParams) (string, error) {
		defer func() { next++ }()
		return names[next], nil
	}
	events, err := cqrs.NewEventProcessorWithConfig(r, cfg)
	require.NoError(t, err)
	for _, name := range names {
		require.NoError(t, events.AddHandlers(cqrs.NewEventHandler(name, func(context.Context, *orderPlaced) error {
			got.add(name)
			return nil
		})))
	}
	run(t, r)
	pub := p.publisher(t)
	for _, name := range names {
		msg, err := cqrsx.JSON.Marshal(&orderPlaced{"1"})
		require.NoError(t, err)
		require.NoError(t, pub.Publish(name, msg), name)
	}
	require.ElementsMatch(t, names, got.await(t, len(names)))
}

// Requesters come and go, each at a port of its own: nothing of them stays at the replier.
func TestReplier_RequestersComeAndGo(t *testing.T) {
	quick := buffstreams.ManagerConfig{Acked: buffstreams.AckedConfig{ForgetAfter: 50 * time.Millisecond}}
	listens, address := newListening(t, quick)
	p := &pair{listens: listens, sends: newManager(t, quick), address: address}
	replying(t, p, cqrsx.ReplierConfig{}, adds)
	live := func() {
		m, err := buffstreams.NewManager(buffstreams.ManagerConfig{})
		require.NoError(t, err)
		pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{Manager: m, Resolver: route.To(address)}, nil)
		require.NoError(t, err)
		q, err := cqrsx.NewRequester[sum](cqrsx.RequesterConfig{Manager: m, Publisher: pub, Timeout: patience}, nil)
		require.NoError(t, err)
		got, err := q.Ask(context.Background(), &add{1, 2})
		require.NoError(t, err)
		require.Equal(t, sum{3}, got)
		require.NoError(t, q.Close())
		require.NoError(t, pub.Close())
		require.NoError(t, m.Close())
	}
	live()
	before := runtime.NumGoroutine()
	for range 50 {
		live()
	}
	require.Eventually(t, func() bool { return runtime.NumGoroutine() <= before+10 }, patience, 10*time.Millisecond,
		"%d goroutines, %d before", runtime.NumGoroutine(), before)
}
