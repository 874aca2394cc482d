package tests

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
)

// quick makes links come back fast.
func quick(cfg buffstreams.AckedConfig) buffstreams.AckedConfig {
	cfg.Reconnect = &buffstreams.ReconnectConfig{InitialInterval: time.Millisecond, MaxInterval: 20 * time.Millisecond}
	return cfg
}

// publishNumbered publishes count messages from each of several goroutines, payload "goroutine/number".
func publishNumbered(t *testing.T, pub message.Publisher, topic string, goroutines, count int) *sync.WaitGroup {
	var wg sync.WaitGroup
	for g := range goroutines {
		wg.Go(func() {
			for i := range count {
				if !assert.NoError(t, pub.Publish(topic, newMessage(fmt.Sprintf("%d/%d", g, i)))) {
					return
				}
			}
		})
	}
	return &wg
}

// order checks that each goroutine's messages arrive in order: first deliveries, or all of them.
type order struct {
	next       map[int]int
	duplicates int
}

func (o *order) see(t *testing.T, payload string) (fresh bool) {
	t.Helper()
	var g, i int
	_, err := fmt.Sscanf(payload, "%d/%d", &g, &i)
	require.NoError(t, err)
	if o.next == nil {
		o.next = map[int]int{}
	}
	if i < o.next[g] {
		o.duplicates++
		return false
	}
	require.Equal(t, o.next[g], i, "a message of publisher %d is missing or out of order", g)
	o.next[g]++
	return true
}

func TestReconnect_NeitherLosesNorDuplicatesNorReorders(t *testing.T) {
	for name, confirm := range map[string]buffstreams.Confirm{
		"enqueued": buffstreams.ConfirmEnqueued, "received": buffstreams.ConfirmReceived, "handled": buffstreams.ConfirmHandled,
	} {
		t.Run(name, func(t *testing.T) {
			const goroutines, count = 8, 1000
			n := newNetwork(t, 0, time.Millisecond)
			h := newHouse(t, buffstreams.ManagerConfig{Dial: n.dial, Acked: quick(buffstreams.AckedConfig{})})
			messages := subscribe(t, h.newSubscriber(t, nil), h.topic("a"))
			pub := h.newPublisher(t, func(c *buffstreams.PublisherConfig) { c.Confirm = confirm })
			publishers := publishNumbered(t, pub, h.topic("a"), goroutines, count)
			var seen order
			for i := range goroutines * count {
				msg := receive(t, messages)
				seen.see(t, string(msg.Payload))
				require.True(t, msg.Ack())
				if i%400 == 399 {
					n.cut()
					n.restore()
				}
			}
			publishers.Wait()
			require.Zero(t, seen.duplicates)
			select {
			case msg := <-messages:
				require.Fail(t, "a duplicate", "%s", msg.Payload)
			case <-time.After(50 * time.Millisecond):
			}
		})
	}
}

// receiveThroughRestarts receives and acks total numbered messages with subscribers that have a listener of their own
// and come and go. atEnd is called before the last one closes.
func receiveThroughRestarts(t *testing.T, topic string, total, restarts int, atEnd func()) {
	var seen order
	for i := 0; i < total; {
		sub, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{CloseTimeout: patience, ConsumerGroup: "g"}, nil)
		require.NoError(t, err)
		messages := subscribe(t, sub, topic)
		for n := 0; n < total/restarts && i < total; n++ {
			msg := receive(t, messages)
			if seen.see(t, string(msg.Payload)) {
				i++
			}
			require.True(t, msg.Ack())
		}
		if i == total {
			atEnd()
		}
		require.NoError(t, sub.Close())
	}
	// Acks that were on their way when a listener closed reach nobody: what they were for can come again.
	t.Logf("%d duplicates at %d restarts", seen.duplicates, restarts)
}

// TestSubscriber_RestartedGetsWhatWasNotHandled: a subscriber with its own listener goes and comes back in mid-stream.
func TestSubscriber_RestartedGetsWhatWasNotHandled(t *testing.T) {
	const goroutines, count = 4, 1000
	topic := freeAddress(t) + "/a"
	pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{
		ManagerConfig: buffstreams.ManagerConfig{Acked: quick(buffstreams.AckedConfig{})},
	}, nil)
	require.NoError(t, err)
	publishers := publishNumbered(t, pub, topic, goroutines, count)
	receiveThroughRestarts(t, topic, goroutines*count, 8, publishers.Wait)
	require.NoError(t, pub.Close())
}

func TestSubscriber_PrivateHandlesWhatItAloneHas(t *testing.T) {
	topic := freeAddress(t) + "/a"
	sub, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{}, nil)
	require.NoError(t, err)
	messages, err := sub.Subscribe(context.Background(), topic)
	require.NoError(t, err)
	pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{}, nil)
	require.NoError(t, err)
	require.NoError(t, pub.Publish(topic, newMessages(100)...))
	require.NoError(t, pub.Close()) // its process is gone: the subscriber has the only copy
	closed := later(sub.Close)
	require.Equal(t, payloads(newMessages(100)), receiveAcked(t, messages, 100))
	require.NoError(t, requireResult(t, closed))
}
