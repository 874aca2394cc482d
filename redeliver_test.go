package buffstreams

import (
	"context"
	"errors"
	"testing"
	"time"
	"unsafe"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/message/router/middleware"
	"github.com/stretchr/testify/require"
)

// nacked returns the time between a Nack and the next delivery.
func nacked(t *testing.T, out <-chan *message.Message, m *message.Message) (time.Duration, *message.Message) {
	t.Helper()
	began := time.Now()
	m.Nack()
	select {
	case m = <-out:
	case <-time.After(30 * time.Second):
		t.Fatal("the message does not come again")
	}
	return time.Since(began), m
}

// A handler says when a message comes again: sooner or later than the configuration does, and for that one delivery.
func TestRedeliverAfter_IsForOneDelivery(t *testing.T) {
	p := newStatsPair(t, PublisherConfig{}, SubscriberConfig{NackResendSleep: 20 * time.Millisecond, NackResendCap: 20 * time.Millisecond})
	out, err := p.sub.Subscribe(context.Background(), "127.0.0.1:0/orders")
	require.NoError(t, err)
	require.NoError(t, p.pub.Publish(p.topic, textMessage("order")))
	m := <-out
	d, ok := DeliveryFromContext(m.Context())
	require.True(t, ok)
	require.Equal(t, Delivery{Attempt: 1, Tenure: 1}, d)

	const later = 2 * time.Second
	require.True(t, RedeliverAfter(m.Context(), later))
	took, m := nacked(t, out, m)
	require.GreaterOrEqual(t, took, later-10*time.Millisecond, "beyond NackResendCap")
	d, _ = DeliveryFromContext(m.Context())
	require.Equal(t, Delivery{Attempt: 2, Redelivered: true, Tenure: 1}, d)

	took, m = nacked(t, out, m)
	require.Less(t, took, later, "the usual delay again")

	require.True(t, RedeliverAfter(m.Context(), time.Hour))
	require.True(t, RedeliverAfter(m.Context(), -1), "undone")
	_, m = nacked(t, out, m)

	require.True(t, RedeliverAfter(m.Context(), time.Hour))
	ctx := m.Context()
	m.Ack()
	require.NoError(t, p.pub.Drain(context.Background()))
	require.Eventually(t, func() bool { return ctx.Err() != nil }, 30*time.Second, time.Millisecond)
	require.False(t, RedeliverAfter(ctx, time.Second), "the delivery has ended")
	require.False(t, RedeliverAfter(context.Background(), time.Second))
}

// A delay of no time is one: the message comes at once, whatever the configuration says.
func TestRedeliverAfter_Zero(t *testing.T) {
	p := newStatsPair(t, PublisherConfig{}, SubscriberConfig{NackResendSleep: time.Minute, NackResendCap: time.Minute})
	out, err := p.sub.Subscribe(context.Background(), "127.0.0.1:0/orders")
	require.NoError(t, err)
	require.NoError(t, p.pub.Publish(p.topic, textMessage("order")))
	m := <-out
	require.True(t, RedeliverAfter(m.Context(), 0))
	took, m := nacked(t, out, m)
	require.Less(t, took, 30*time.Second)
	m.Ack()
}

// The wait ends within MaxAge, when the message has failed for good, and at once when the subscription closes.
func TestRedeliverAfter_EndsWithMaxAgeAndClose(t *testing.T) {
	failed := make(chan error, 1)
	p := newStatsPair(t, PublisherConfig{}, SubscriberConfig{
		MaxAge: 300 * time.Millisecond, OnFailure: func(_ *message.Message, reason error) { failed <- reason },
	})
	out, err := p.sub.Subscribe(context.Background(), "127.0.0.1:0/orders")
	require.NoError(t, err)
	require.NoError(t, p.pub.Publish(p.topic, textMessage("order")))
	m := <-out
	require.True(t, RedeliverAfter(m.Context(), time.Hour))
	_, m = nacked(t, out, m)
	require.True(t, RedeliverAfter(m.Context(), time.Hour))
	m.Nack()
	require.ErrorContains(t, <-failed, "not handled")

	other := newStatsPair(t, PublisherConfig{}, SubscriberConfig{CloseTimeout: time.Minute})
	out, err = other.sub.Subscribe(context.Background(), "127.0.0.1:0/orders")
	require.NoError(t, err)
	require.NoError(t, other.pub.Publish(other.topic, textMessage("order")))
	m = <-out
	require.True(t, RedeliverAfter(m.Context(), time.Hour))
	m.Nack()
	began := time.Now()
	require.NoError(t, other.sub.Close())
	require.Less(t, time.Since(began), 30*time.Second)
}

// It works behind a Router and its middlewares, which change contexts and call the handler again.
func TestRedeliverAfter_BehindARouter(t *testing.T) {
	p := newStatsPair(t, PublisherConfig{}, SubscriberConfig{NackResendSleep: time.Minute, NackResendCap: time.Minute})
	router, err := message.NewRouter(message.RouterConfig{CloseTimeout: time.Second}, watermill.NopLogger{})
	require.NoError(t, err)
	router.AddMiddleware(middleware.CorrelationID, middleware.Timeout(10*time.Second), middleware.Recoverer,
		middleware.Retry{MaxRetries: 1, InitialInterval: time.Millisecond}.Middleware)
	calls := make(chan time.Time, 10)
	router.AddConsumerHandler("h", "127.0.0.1:0/orders", p.sub, func(m *message.Message) error {
		calls <- time.Now()
		if d, _ := DeliveryFromContext(m.Context()); d.Attempt == 1 {
			if !RedeliverAfter(m.Context(), 300*time.Millisecond) {
				panic("the context is not the message's")
			}
			return errors.New("busy")
		}
		return nil
	})
	done := make(chan error, 1)
	go func() { done <- router.Run(context.Background()) }() // ends with router.Close
	<-router.Running()
	require.NoError(t, p.pub.Publish(p.topic, textMessage("order")))
	_, second, third := <-calls, <-calls, <-calls // two within the first delivery, by Retry
	require.GreaterOrEqual(t, third.Sub(second), 290*time.Millisecond)
	require.Less(t, third.Sub(second), 30*time.Second)
	require.NoError(t, router.Close())
	require.NoError(t, <-done)
}

// Each delivery has one of these: it must not grow into the next size class of the allocator.
func TestMessageContext_IsSmall(t *testing.T) {
	require.LessOrEqual(t, unsafe.Sizeof(messageContext{}), uintptr(80))
}
