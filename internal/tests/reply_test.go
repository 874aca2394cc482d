package tests

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/components/cqrs"
	"github.com/ThreeDotsLabs/watermill/components/requestreply"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
)

var confirmLevels = map[string]buffstreams.Confirm{
	"enqueued": buffstreams.ConfirmEnqueued, "received": buffstreams.ConfirmReceived, "handled": buffstreams.ConfirmHandled,
}

// A requester acks its reply and leaves at once. Whatever Publish waits for, that is no failure.
func TestReply_AckedIsNotGone(t *testing.T) {
	for name, level := range confirmLevels {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t, buffstreams.ManagerConfig{})
			sub := h.newSubscriber(t, ephemeral)
			var refused failures
			pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{Confirm: level, OnFailure: refused.add}, nil)
			require.NoError(t, err)
			for i := range 200 {
				topic := h.topic(fmt.Sprint("reply-", i))
				ctx, cancel := context.WithCancel(context.Background())
				replies, err := sub.Subscribe(ctx, topic)
				require.NoError(t, err)
				published := later(func() error { return pub.Publish(topic, newMessage("x")) })
				require.True(t, receive(t, replies).Ack())
				cancel()
				require.NoError(t, requireResult(t, published), "reply %d", i)
			}
			require.NoError(t, pub.Close())
			require.Empty(t, refused.got())
		})
	}
}

// The ack of a reply is lost with the connection, and the topic ends before there is another one.
func TestReply_AckedIsNotGoneAfterACut(t *testing.T) {
	h := newHouse(t, buffstreams.ManagerConfig{})
	sub := h.newSubscriber(t, ephemeral)
	n := newNetwork(t, 50*time.Millisecond, 0)
	var refused failures
	pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{
		Confirm: buffstreams.ConfirmHandled, OnFailure: refused.add, CloseTimeout: time.Second,
		ManagerConfig: buffstreams.ManagerConfig{Dial: n.dial, Acked: quick(buffstreams.AckedConfig{})},
	}, nil)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	replies, err := sub.Subscribe(ctx, h.topic("reply"))
	require.NoError(t, err)
	published := []<-chan error{
		later(func() error { return pub.Publish(h.topic("reply"), newMessage("acked")) }),
	}
	first := receive(t, replies)
	n.cut() // the publisher hears of nothing
	first.Ack()
	cancel()
	_, open := <-replies
	require.False(t, open)
	n.restore()
	require.NoError(t, requireResult(t, published[0]))
	require.ErrorIs(t, pub.Publish(h.topic("reply"), newMessage("late")), buffstreams.ErrTopicGone)
	require.NoError(t, pub.Close())
	require.Equal(t, []string{"late"}, refused.got())
}

// A topic that exists again goes on where it was with a publisher that was away: what was acked does not come twice, what
// was not comes to the new subscription.
func TestReply_TopicThatExistsAgainAfterACut(t *testing.T) {
	t.Parallel()
	h := newHouse(t, buffstreams.ManagerConfig{})
	sub := h.newSubscriber(t, ephemeral)
	n := newNetwork(t, 50*time.Millisecond, 0)
	pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{
		Confirm: buffstreams.ConfirmHandled, CloseTimeout: time.Second,
		ManagerConfig: buffstreams.ManagerConfig{Dial: n.dial, Acked: quick(buffstreams.AckedConfig{})},
	}, nil)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	messages, err := sub.Subscribe(ctx, h.topic("a"))
	require.NoError(t, err)
	published := later(func() error { return pub.Publish(h.topic("a"), newMessage("acked"), newMessage("not")) })
	first := receive(t, messages)
	n.cut()
	first.Ack()
	receive(t, messages)
	cancel()
	for range messages {
	}
	again := subscribe(t, sub, h.topic("a"))
	n.restore()
	require.Equal(t, []string{"not"}, receiveAcked(t, again, 1))
	require.NoError(t, requireResult(t, published))
	require.NoError(t, pub.Close())
}

// lateReplies are the ways in which nobody waits for a reply any more. Each returns where it goes.
var lateReplies = map[string]func(t *testing.T) (topic string){
	"the topic ended": func(t *testing.T) string {
		h := newHouse(t, buffstreams.ManagerConfig{})
		return endedTopic(t, h)
	},
	"the topic was forgotten": func(t *testing.T) string {
		h := newHouse(t, buffstreams.ManagerConfig{Acked: buffstreams.AckedConfig{ForgetAfter: time.Nanosecond}})
		return endedTopic(t, h)
	},
	"the process is gone": func(t *testing.T) string { return freeAddress(t) + "/reply" },
}

func endedTopic(t *testing.T, h *house) string {
	ctx, cancel := context.WithCancel(context.Background())
	replies, err := h.newSubscriber(t, ephemeral).Subscribe(ctx, h.topic("reply"))
	require.NoError(t, err)
	cancel()
	_, open := <-replies
	require.False(t, open)
	return h.topic("reply")
}

// Late replies cost a publisher of replies one log line a minute and a count, and no more than a second or so.
func TestReply_LateOneIsDropped(t *testing.T) {
	for name, late := range lateReplies {
		for levelName, level := range confirmLevels {
			t.Run(name+"/"+levelName, func(t *testing.T) {
				t.Parallel()
				topic := late(t)
				var dropped failures
				log := testkit.NewLog()
				pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{
					Ephemeral: true, Confirm: level, OnFailure: dropped.add, ManagerConfig: buffstreams.ManagerConfig{
						Logger: watermill.NopLogger{}, Acked: buffstreams.AckedConfig{WindowMessages: 2},
					},
				}, log)
				require.NoError(t, err)
				began := time.Now()
				require.NoError(t, pub.Publish(topic, newMessages(5)...), "more than the window has room for")
				require.NoError(t, pub.Publish(topic, newMessage("5")))
				require.NoError(t, pub.Close())
				require.Less(t, time.Since(began), 20*time.Second, "PublishTimeout is 30 s")
				require.ElementsMatch(t, []string{"0", "1", "2", "3", "4", "5"}, dropped.got())
				line := log.Next(t, "info")
				require.Contains(t, line.Fields["topic"], "reply")
				require.Contains(t, []uint64{1, 2, 3, 4, 5, 6}, line.Fields["count"], "those that were dropped by then")
				require.Empty(t, log.Lines, "the others are counted")
			})
		}
	}
}

// The time-out of Publish may be shorter than it takes to see that nobody waits.
func TestReply_LateOneIsDroppedWithAShortTimeout(t *testing.T) {
	t.Parallel()
	pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{Ephemeral: true, PublishTimeout: 500 * time.Millisecond}, nil)
	require.NoError(t, err)
	require.NoError(t, pub.Publish(freeAddress(t)+"/reply", newMessage("x")))
	require.NoError(t, pub.Close())
}

// A publisher of replies drops nothing of a topic that is there and slow, and nothing of other publishers.
func TestReply_PublisherDropsNothingElse(t *testing.T) {
	t.Parallel()
	h := newHouse(t, buffstreams.ManagerConfig{Acked: quick(buffstreams.AckedConfig{WindowMessages: 8})})
	address := freeAddress(t)
	replies := h.newPublisher(t, func(c *buffstreams.PublisherConfig) { c.Ephemeral = true })
	orders := h.newPublisher(t, nil)
	order := later(func() error { return orders.Publish(address+"/a", newMessage("order")) }) // the peer is still to come
	require.NoError(t, replies.Publish(address+"/a", newMessage("reply")))
	sub, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{ConsumerGroup: "g"}, nil)
	require.NoError(t, err)
	defer func() { require.NoError(t, sub.Close()) }()
	messages := subscribe(t, sub, address+"/a")
	require.Equal(t, []string{"order"}, receiveAcked(t, messages, 1))
	require.NoError(t, requireResult(t, order))

	slow := subscribe(t, h.newSubscriber(t, nil), h.topic("slow"))
	published := later(func() error { return replies.Publish(h.topic("slow"), newMessages(50)...) })
	select {
	case err := <-published:
		require.Fail(t, "the topic is full, and there", "%v", err)
	case <-time.After(1500 * time.Millisecond): // longer than an absent topic is waited for
	}
	require.Equal(t, payloads(newMessages(50)), receiveAcked(t, slow, 50))
	require.NoError(t, requireResult(t, published))
}

func TestReply_EphemeralPublisherHasNoOutboxAndNoPlainWire(t *testing.T) {
	cfg := buffstreams.PublisherConfig{Ephemeral: true, Wire: buffstreams.WireBuffStreams, Confirm: buffstreams.ConfirmEnqueued}
	require.ErrorContains(t, cfg.Validate(), "PublisherConfig.Ephemeral")
	cfg = buffstreams.PublisherConfig{Ephemeral: true, Outbox: openOutbox(t, t.TempDir())}
	require.ErrorContains(t, cfg.Validate(), "PublisherConfig.Ephemeral")
}

type add struct{ A, B int }
type sum struct{ Sum int }

// TestReply_WatermillsRequestReply: with its defaults each request is answered, and each command runs once.
func TestReply_WatermillsRequestReply(t *testing.T) {
	const requests, concurrent = 1000, 32
	services, requesters := newHouse(t, buffstreams.ManagerConfig{}), newHouse(t, buffstreams.ManagerConfig{})
	asJSON := cqrs.JSONMarshaler{GenerateName: cqrs.StructName}
	backend := func(pub message.Publisher, replies message.Subscriber) *requestreply.PubSubBackend[sum] {
		timeout := patience
		b, err := requestreply.NewPubSubBackend[sum](requestreply.PubSubBackendConfig{
			Publisher: pub,
			SubscriberConstructor: func(requestreply.PubSubBackendSubscribeParams) (message.Subscriber, error) {
				return replies, nil
			},
			GenerateSubscribeTopic: func(p requestreply.PubSubBackendSubscribeParams) (string, error) {
				return requesters.topic("reply-" + string(p.OperationID)), nil
			},
			GeneratePublishTopic: func(p requestreply.PubSubBackendPublishParams) (string, error) {
				return requesters.topic("reply-" + string(p.OperationID)), nil
			},
			ListenForReplyTimeout: &timeout,
		}, requestreply.BackendPubsubJSONMarshaler[sum]{})
		require.NoError(t, err)
		return b
	}
	router, err := message.NewRouter(message.RouterConfig{}, nil)
	require.NoError(t, err)
	processor, err := cqrs.NewCommandProcessorWithConfig(router, cqrs.CommandProcessorConfig{
		GenerateSubscribeTopic: func(p cqrs.CommandProcessorGenerateSubscribeTopicParams) (string, error) {
			return services.topic(p.CommandName), nil
		},
		SubscriberConstructor: func(cqrs.CommandProcessorSubscriberConstructorParams) (message.Subscriber, error) {
			return services.newSubscriber(t, func(c *buffstreams.SubscriberConfig) { c.MaxInFlight = concurrent }), nil
		},
		Marshaler: asJSON,
	})
	require.NoError(t, err)
	var runs atomic.Int64
	answers := backend(services.newPublisher(t, nil), nil)
	require.NoError(t, processor.AddHandlers(requestreply.NewCommandHandlerWithResult[add, sum]("add", answers,
		func(_ context.Context, c *add) (sum, error) { runs.Add(1); return sum{c.A + c.B}, nil })))
	ended := later(func() error { return router.Run(context.Background()) })
	<-router.Running()
	pub := requesters.newPublisher(t, nil)
	bus, err := cqrs.NewCommandBusWithConfig(pub, cqrs.CommandBusConfig{
		GeneratePublishTopic: func(p cqrs.CommandBusGeneratePublishTopicParams) (string, error) {
			return services.topic(p.CommandName), nil
		},
		Marshaler: asJSON,
	})
	require.NoError(t, err)
	asks := backend(pub, requesters.newSubscriber(t, ephemeral))
	var next atomic.Int64
	errs := make(chan error, requests)
	var wg sync.WaitGroup
	for range concurrent {
		wg.Go(func() {
			for i := int(next.Add(1)); i <= requests; i = int(next.Add(1)) {
				r, err := requestreply.SendWithReply[sum](context.Background(), bus, asks, &add{i, 1})
				if err == nil && r.Error == nil && r.HandlerResult.Sum != i+1 {
					err = errors.New("a wrong answer")
				}
				errs <- errors.Join(err, r.Error)
			}
		})
	}
	for range requests {
		require.NoError(t, requireResult(t, errs))
	}
	wg.Wait()
	require.NoError(t, router.Close())
	require.NoError(t, requireResult(t, ended))
	require.EqualValues(t, requests, runs.Load(), "each command runs once")
}
