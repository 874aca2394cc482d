package tests

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/internal/wire"
)

// TestConfirmReceived_NeedsTheWordOfTheReceiver: that the messages have reached it is not enough.
func TestConfirmReceived_NeedsTheWordOfTheReceiver(t *testing.T) {
	ln, topic := listenPeer(t)
	pub := senderOf(t, buffstreams.AckedConfig{}, buffstreams.ConfirmReceived)
	result := later(func() error { return pub.Publish(topic, newMessages(2)...) })
	d := acceptDesk(t, ln)
	d.grant(2, 1000)
	d.collect(2)
	d.send(&wire.Ack{Handle: d.open.Handle, Next: d.open.Base + 1, CreditMessages: 2, CreditBytes: 1000})
	d.sync()
	select {
	case err := <-result:
		require.Fail(t, "Publish returned before all was received", "%v", err)
	default:
	}
	d.send(&wire.Ack{Handle: d.open.Handle, Next: d.next, CreditMessages: 2, CreditBytes: 1000})
	require.NoError(t, requireResult(t, result))
}

func TestConfirmReceived_ReturnsBeforeTheHandlerAcks(t *testing.T) {
	h := newHouse(t, buffstreams.ManagerConfig{})
	messages := subscribe(t, h.newSubscriber(t, nil), h.topic("a"))
	require.NoError(t, h.newPublisher(t, nil).Publish(h.topic("a"), newMessage("x")))
	require.True(t, receive(t, messages).Ack())
}

func TestConfirmHandled_ReturnsAfterTheHandlerAcks(t *testing.T) {
	h := newHouse(t, buffstreams.ManagerConfig{})
	messages := subscribe(t, h.newSubscriber(t, nil), h.topic("a"))
	pub := h.newPublisher(t, func(c *buffstreams.PublisherConfig) { c.Confirm = buffstreams.ConfirmHandled })
	result := later(func() error { return pub.Publish(h.topic("a"), newMessage("x"), newMessage("y")) })
	for range 2 {
		msg := receive(t, messages)
		select {
		case err := <-result:
			require.Fail(t, "Publish returned before the ack", "%v", err)
		case <-time.After(50 * time.Millisecond):
		}
		require.True(t, msg.Ack())
	}
	require.NoError(t, requireResult(t, result))
}

func TestConfirmHandled_WaitsForEveryGroup(t *testing.T) {
	h := newHouse(t, buffstreams.ManagerConfig{})
	group := func(name string) func(*buffstreams.SubscriberConfig) {
		return func(c *buffstreams.SubscriberConfig) { c.ConsumerGroup = name }
	}
	one := subscribe(t, h.newSubscriber(t, group("one")), h.topic("a"))
	two := subscribe(t, h.newSubscriber(t, group("two")), h.topic("a"))
	pub := h.newPublisher(t, func(c *buffstreams.PublisherConfig) { c.Confirm = buffstreams.ConfirmHandled })
	result := later(func() error { return pub.Publish(h.topic("a"), newMessage("x")) })
	require.True(t, receive(t, one).Ack())
	select {
	case <-result:
		require.Fail(t, "Publish returned before the second group's ack")
	case <-time.After(50 * time.Millisecond):
	}
	require.True(t, receive(t, two).Ack())
	require.NoError(t, requireResult(t, result))
}

func TestConfirmEnqueued_DoesNotNeedThePeer(t *testing.T) {
	h := newHouse(t, buffstreams.ManagerConfig{})
	pub := h.newPublisher(t, func(c *buffstreams.PublisherConfig) { c.Confirm = buffstreams.ConfirmEnqueued })
	msgs := newMessages(100)
	require.NoError(t, pub.Publish(h.topic("a"), msgs...))
	messages := subscribe(t, h.newSubscriber(t, nil), h.topic("a"))
	require.Equal(t, payloads(msgs), receiveAcked(t, messages, len(msgs)))
}

// TestPublishError_AccountsForEachMessage: messages of a call that was refused in part are in neither list if they reached their
// level. What cannot be handled was received: that is for OnFailure, whatever comes first, the ack or the rejection.
func TestPublishError_AccountsForEachMessage(t *testing.T) {
	h := newHouse(t, buffstreams.ManagerConfig{})
	messages := subscribe(t, h.newSubscriber(t, func(c *buffstreams.SubscriberConfig) { c.MaxAttempts = 1 }), h.topic("a"))
	go func() { // ends with the subscriber
		for msg := range messages {
			if string(msg.Payload) == "1" {
				msg.Nack()
			} else {
				msg.Ack()
			}
		}
	}()
	handled := h.newPublisher(t, func(c *buffstreams.PublisherConfig) { c.Confirm = buffstreams.ConfirmHandled })
	var failed *buffstreams.PublishError
	require.ErrorAs(t, handled.Publish(h.topic("a"), newMessages(3)...), &failed)
	require.ErrorIs(t, failed, buffstreams.ErrHandlingFailed)
	require.Equal(t, []string{"1"}, payloads(failed.Unknown))
	require.Empty(t, failed.NotSent)

	told := make(chan error, 100)
	received := h.newPublisher(t, func(c *buffstreams.PublisherConfig) {
		c.OnFailure = func(_ string, _ []byte, err error) { told <- err }
	})
	for range cap(told) {
		require.NoError(t, received.Publish(h.topic("a"), newMessage("1")))
		require.ErrorIs(t, requireResult(t, told), buffstreams.ErrHandlingFailed)
	}
}
