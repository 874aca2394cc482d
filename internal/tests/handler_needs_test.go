package tests

import (
	"context"
	"fmt"
	"math"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/batch"
	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
)

func deliveryOf(t *testing.T, msg *message.Message) buffstreams.Delivery {
	t.Helper()
	d, ok := buffstreams.DeliveryFromContext(msg.Context())
	require.True(t, ok)
	return d
}

// TestDelivery_EachGroupCountsItsOwn: what one group nacks is the first delivery of another, however late that takes it.
func TestDelivery_EachGroupCountsItsOwn(t *testing.T) {
	testkit.CheckLeaks(t)
	h := newHouse(t, buffstreams.ManagerConfig{})
	channels := map[string]<-chan *message.Message{}
	for _, group := range []string{"nacks", "acks"} {
		channels[group] = subscribe(t, h.newSubscriber(t, func(c *buffstreams.SubscriberConfig) {
			c.ConsumerGroup, c.NackResendSleep = group, time.Millisecond
		}), h.topic("a"))
	}
	require.NoError(t, h.newPublisher(t, nil).Publish(h.topic("a"), newMessage("x")))
	for attempt := 1; attempt <= 5; attempt++ {
		msg := receive(t, channels["nacks"])
		d := deliveryOf(t, msg)
		require.Equal(t, attempt, d.Attempt)
		require.Equal(t, attempt > 1, d.Redelivered)
		require.False(t, d.MaybeDuplicate)
		if attempt < 5 {
			msg.Nack()
		} else {
			msg.Ack()
		}
	}
	msg := receive(t, channels["acks"])
	require.Equal(t, buffstreams.Delivery{Attempt: 1, Tenure: 1}, deliveryOf(t, msg))
	msg.Ack()
}

// TestRedeliverAfter_HoldsUpItsKeyOnly: while one message waits for its own delay, those of its key wait behind it in order, and
// those of other keys go on.
func TestRedeliverAfter_HoldsUpItsKeyOnly(t *testing.T) {
	t.Parallel()
	h := newHouse(t, buffstreams.ManagerConfig{})
	messages := subscribe(t, h.newSubscriber(t, func(c *buffstreams.SubscriberConfig) {
		c.Key = func(msg *message.Message) string { return msg.Metadata.Get("key") }
		c.MaxInFlight = 8
	}), h.topic("a"))
	pub := h.newPublisher(t, nil)
	publish := func(key, payload string) {
		msg := newMessage(payload)
		msg.Metadata.Set("key", key)
		require.NoError(t, pub.Publish(h.topic("a"), msg))
	}
	publish("slow", "slow 1")
	first := receive(t, messages)
	const delay = 4 * time.Second // in which the others come and go
	ctx, cancel := context.WithTimeout(context.WithValue(first.Context(), deliveryKey{}, "a middleware's"), time.Hour)
	defer cancel()
	require.True(t, buffstreams.RedeliverAfter(ctx, delay), "a context that was made of the message's")
	began := time.Now()
	first.Nack()
	publish("slow", "slow 2")
	for i := range 20 {
		publish("other", fmt.Sprint(i))
	}
	require.Equal(t, payloads(newMessages(20)), receiveAcked(t, messages, 20))
	again := receive(t, messages)
	require.Equal(t, "slow 1", string(again.Payload))
	require.GreaterOrEqual(t, time.Since(began), delay)
	require.Equal(t, 2, deliveryOf(t, again).Attempt)
	require.False(t, buffstreams.RedeliverAfter(first.Context(), time.Hour), "that delivery has ended")
	again.Ack()
	require.Equal(t, []string{"slow 2"}, receiveAcked(t, messages, 1))
}

type deliveryKey struct{}

// TestRedeliverAfter_RacesWithTheEnd: calls from anywhere, with any delay, while the message is acked or nacked, harm nothing.
func TestRedeliverAfter_RacesWithTheEnd(t *testing.T) {
	testkit.CheckLeaks(t)
	h := newHouse(t, buffstreams.ManagerConfig{})
	messages := subscribe(t, h.newSubscriber(t, func(c *buffstreams.SubscriberConfig) { c.NackResendSleep = time.Millisecond }), h.topic("a"))
	pub := h.newPublisher(t, nil)
	require.NoError(t, pub.Publish(h.topic("a"), newMessages(50)...))
	var callers sync.WaitGroup
	var got []string
	for len(got) < 50 {
		msg := receive(t, messages)
		for _, delay := range []time.Duration{0, -1, time.Microsecond, math.MinInt64} {
			callers.Go(func() { buffstreams.RedeliverAfter(msg.Context(), delay) }) // they end by themselves
		}
		if deliveryOf(t, msg).Attempt == 1 {
			msg.Nack()
			continue
		}
		got = append(got, string(msg.Payload))
		buffstreams.RedeliverAfter(msg.Context(), math.MaxInt64) // an Ack has no delay
		msg.Ack()
	}
	callers.Wait()
	require.Equal(t, payloads(newMessages(50)), got)
	drain(t, pub)
}

// TestBatch_HandlerNacksOneWithItsDelay: a handler of batches gives one message back for later, and the others are acked.
func TestBatch_HandlerNacksOneWithItsDelay(t *testing.T) {
	h := newHouse(t, buffstreams.ManagerConfig{})
	messages := subscribe(t, h.newSubscriber(t, func(c *buffstreams.SubscriberConfig) { c.MaxInFlight = 40 }), h.topic("a"))
	require.NoError(t, h.newPublisher(t, nil).Publish(h.topic("a"), newMessages(20)...))
	ctx, stop := context.WithCancel(t.Context())
	const delay = 300 * time.Millisecond
	attempts := map[string]int{}
	var nacked, back time.Time
	err := batch.Run(ctx, messages, func(_ context.Context, msgs []*message.Message) error {
		for _, msg := range msgs {
			d := deliveryOf(t, msg)
			attempts[string(msg.Payload)] = d.Attempt
			switch {
			case string(msg.Payload) != "7":
			case d.Attempt == 1:
				require.True(t, buffstreams.RedeliverAfter(msg.Context(), delay))
				nacked = time.Now()
				msg.Nack()
			default:
				back = time.Now()
				stop()
			}
		}
		return nil
	}, batch.Config{Size: 20})
	require.ErrorIs(t, err, context.Canceled)
	require.Len(t, attempts, 20)
	for payload, attempt := range attempts {
		require.Equal(t, map[bool]int{true: 2, false: 1}[payload == "7"], attempt, payload)
	}
	require.GreaterOrEqual(t, back.Sub(nacked), delay)
}

// copying is a subscriber whose messages are others than those of the one that it wraps, as decorators and other adapters make them.
type copying struct{ message.Subscriber }

func (c copying) Subscribe(ctx context.Context, topic string) (<-chan *message.Message, error) {
	in, err := c.Subscriber.Subscribe(ctx, topic)
	if err != nil {
		return nil, err
	}
	out := make(chan *message.Message)
	go func() { // ends with the subscription
		defer close(out)
		for from := range in {
			to := from.Copy()
			to.SetContext(from.Context())
			go func() { // ends with the message
				select {
				case <-to.Acked():
					from.Ack()
				case <-to.Nacked():
					from.Nack()
				case <-from.Context().Done():
				}
			}()
			select {
			case out <- to:
			case <-from.Context().Done():
			}
		}
	}()
	return out, nil
}

// TestBatch_BehindADecorator: batches keep all messages, in order, where the messages are copies, and some fail.
func TestBatch_BehindADecorator(t *testing.T) {
	testkit.CheckLeaks(t)
	h := newHouse(t, buffstreams.ManagerConfig{})
	sub := h.newSubscriber(t, func(c *buffstreams.SubscriberConfig) { c.MaxInFlight = 32 })
	messages, err := copying{sub}.Subscribe(t.Context(), h.topic("a"))
	require.NoError(t, err)
	pub := h.newPublisher(t, nil)
	require.NoError(t, pub.Publish(h.topic("a"), newMessages(100)...))
	ctx, stop := context.WithCancel(t.Context())
	var got []string
	failed := map[string]bool{}
	err = batch.Run(ctx, messages, func(_ context.Context, msgs []*message.Message) error {
		for i, msg := range msgs {
			payload := string(msg.Payload)
			if payload[len(payload)-1] == '3' && !failed[payload] {
				failed[payload] = true
				return &batch.FromError{Index: i, Err: fmt.Errorf("not yet: %s", payload)}
			}
			got = append(got, payload)
		}
		if len(got) == 100 {
			stop()
		}
		return nil
	}, batch.Config{Size: 16, Sleep: time.Millisecond})
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, payloads(newMessages(100)), got)
	require.Len(t, failed, 10)
	drain(t, pub)
}
