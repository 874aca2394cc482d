package tests

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
)

// patience is how long a test waits for what must happen: long enough for a loaded machine.
const patience = 20 * time.Second

func newMessage(payload string) *message.Message {
	return message.NewMessage(watermill.NewUUID(), []byte(payload))
}

func newMessages(n int) []*message.Message {
	msgs := make([]*message.Message, n)
	for i := range msgs {
		msgs[i] = newMessage(fmt.Sprint(i))
	}
	return msgs
}

func receive(t *testing.T, messages <-chan *message.Message) *message.Message {
	t.Helper()
	select {
	case msg, ok := <-messages:
		require.True(t, ok, "the channel was closed")
		return msg
	case <-time.After(patience):
		require.Fail(t, "no message")
	}
	return nil
}

// receiveAcked acks n messages and returns their payloads.
func receiveAcked(t *testing.T, messages <-chan *message.Message, n int) (payloads []string) {
	t.Helper()
	for range n {
		msg := receive(t, messages)
		payloads = append(payloads, string(msg.Payload))
		require.True(t, msg.Ack())
	}
	return payloads
}

func payloads(msgs []*message.Message) (out []string) {
	for _, m := range msgs {
		out = append(out, string(m.Payload))
	}
	return out
}

func (h *house) newPublisher(t *testing.T, change func(*buffstreams.PublisherConfig)) *buffstreams.Publisher {
	cfg := h.publisher
	if change != nil {
		change(&cfg)
	}
	pub, err := buffstreams.NewPublisher(cfg, nil)
	require.NoError(t, err)
	t.Cleanup(func() { _ = pub.Close() })
	return pub
}

func (h *house) newSubscriber(t *testing.T, change func(*buffstreams.SubscriberConfig)) *buffstreams.Subscriber {
	cfg := h.subscriber
	if change != nil {
		change(&cfg)
	}
	sub, err := buffstreams.NewSubscriber(cfg, nil)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, sub.Close()) })
	return sub
}

func subscribe(t *testing.T, sub *buffstreams.Subscriber, topic string) <-chan *message.Message {
	messages, err := sub.Subscribe(context.Background(), topic)
	require.NoError(t, err)
	return messages
}

// later runs f and returns a channel with its result.
func later(f func() error) <-chan error {
	result := make(chan error, 1)
	go func() { result <- f() }()
	return result
}

func requireResult(t *testing.T, result <-chan error) error {
	t.Helper()
	select {
	case err := <-result:
		return err
	case <-time.After(patience):
		require.Fail(t, "no result")
	}
	return nil
}

func TestPublish_WaitsForItsTopic(t *testing.T) {
	h := newHouse(t, buffstreams.ManagerConfig{})
	pub := h.newPublisher(t, nil)
	result := later(func() error { return pub.Publish(h.topic("a"), newMessage("x")) })
	sub := h.newSubscriber(t, nil)
	_ = subscribe(t, sub, h.topic("another")) // the peer is there, the topic is not
	select {
	case <-result:
		require.Fail(t, "Publish returned before the topic existed")
	case <-time.After(100 * time.Millisecond):
	}
	require.NoError(t, sub.SubscribeInitialize(h.topic("a")))
	require.NoError(t, requireResult(t, result))
}

func TestPublishTimeout_NamesWhatIsUnknown(t *testing.T) {
	t.Parallel()
	h := newHouse(t, buffstreams.ManagerConfig{Acked: buffstreams.AckedConfig{WindowMessages: 3}})
	pub := h.newPublisher(t, func(c *buffstreams.PublisherConfig) {
		c.PublishTimeout, c.CloseTimeout = 4*time.Second, time.Millisecond // in which three are sent
	})
	msgs := newMessages(5)
	err := pub.Publish(h.topic("a"), msgs...)
	require.ErrorIs(t, err, buffstreams.ErrTimeout)
	var failed *buffstreams.PublishError
	require.ErrorAs(t, err, &failed)
	assert.Equal(t, payloads(msgs[:3]), payloads(failed.Unknown), "the window took these")
	assert.Equal(t, payloads(msgs[3:]), payloads(failed.NotSent))
	assert.Contains(t, err.Error(), h.topic("a"))
	assert.Contains(t, err.Error(), h.address)

	var left *buffstreams.UndeliveredError
	require.ErrorAs(t, pub.Close(), &left)
	assert.Equal(t, 3, left.Count)
	assert.ErrorIs(t, pub.Publish(h.topic("a"), newMessage("late")), buffstreams.ErrPublisherClosed)
}

func TestPublishContext_BoundsTheWaitOnlyWhereAsked(t *testing.T) {
	h := newHouse(t, buffstreams.ManagerConfig{})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	msg := newMessage("x")
	msg.SetContext(ctx)
	asked := h.newPublisher(t, func(c *buffstreams.PublisherConfig) {
		c.PublishContext, c.CloseTimeout = true, time.Millisecond
	})
	require.ErrorIs(t, asked.Publish(h.topic("a"), msg), context.Canceled)

	messages := subscribe(t, h.newSubscriber(t, nil), h.topic("b"))
	require.NoError(t, h.newPublisher(t, nil).Publish(h.topic("b"), msg))
	require.True(t, receive(t, messages).Ack())
}

func TestPublish_TooLargeIsRefusedBeforeAnythingIsSent(t *testing.T) {
	h := newHouse(t, buffstreams.ManagerConfig{Acked: buffstreams.AckedConfig{MaxMessageSize: 1000}})
	messages := subscribe(t, h.newSubscriber(t, nil), h.topic("a"))
	pub := h.newPublisher(t, nil)
	err := pub.Publish(h.topic("a"), newMessage("small"), newMessage(string(make([]byte, 1000))))
	var tooLarge *buffstreams.TooLargeError
	require.ErrorAs(t, err, &tooLarge)
	require.ErrorIs(t, err, buffstreams.ErrTooLarge)
	require.Equal(t, 1000, tooLarge.Limit)
	require.NoError(t, pub.Publish(h.topic("a"), newMessage("next")))
	require.Equal(t, []string{"next"}, receiveAcked(t, messages, 1))
}

func TestNack_RedeliversInPlace(t *testing.T) {
	h := newHouse(t, buffstreams.ManagerConfig{})
	messages := subscribe(t, h.newSubscriber(t, nil), h.topic("a"))
	require.NoError(t, h.newPublisher(t, nil).Publish(h.topic("a"), newMessages(3)...))
	for range 5 {
		msg := receive(t, messages)
		require.Equal(t, "0", string(msg.Payload))
		require.True(t, msg.Nack())
	}
	require.Equal(t, []string{"0", "1", "2"}, receiveAcked(t, messages, 3))
}

func TestMessageContext(t *testing.T) {
	type key string
	h := newHouse(t, buffstreams.ManagerConfig{})
	sub := h.newSubscriber(t, nil)
	ctx, cancel := context.WithCancel(context.WithValue(context.Background(), key("k"), "v"))
	messages, err := sub.Subscribe(ctx, h.topic("a"))
	require.NoError(t, err)
	require.NoError(t, h.newPublisher(t, nil).Publish(h.topic("a"), newMessages(3)...))

	msg := receive(t, messages)
	require.Equal(t, "v", msg.Context().Value(key("k")))
	require.NoError(t, msg.Context().Err())
	child, stop := context.WithTimeout(msg.Context(), time.Hour)
	defer stop()
	msg.Ack()
	<-child.Done()
	require.ErrorIs(t, msg.Context().Err(), context.Canceled)

	msg = receive(t, messages) // its Done is asked for only after the Nack
	before := msg.Context()
	msg.Nack()
	msg = receive(t, messages)
	<-before.Done()

	cancel() // the handler of the message at hand may end
	require.NoError(t, msg.Context().Err())
	msg.Ack()
	<-msg.Context().Done()
	_, open := <-messages
	require.False(t, open)
}

func TestMaxInFlight(t *testing.T) {
	h := newHouse(t, buffstreams.ManagerConfig{})
	messages := subscribe(t, h.newSubscriber(t, func(c *buffstreams.SubscriberConfig) { c.MaxInFlight = 4 }), h.topic("a"))
	require.NoError(t, h.newPublisher(t, nil).Publish(h.topic("a"), newMessages(10)...))
	var held []*message.Message
	for i := range 4 {
		msg := receive(t, messages)
		require.Equal(t, fmt.Sprint(i), string(msg.Payload), "messages are emitted in order")
		held = append(held, msg)
	}
	select {
	case msg := <-messages:
		require.Fail(t, "more unacked messages than MaxInFlight", "%s", msg.Payload)
	case <-time.After(50 * time.Millisecond):
	}
	held[2].Ack() // in any order, and one that is stuck holds up nobody
	held[3].Ack()
	held[1].Ack()
	require.Equal(t, []string{"4", "5", "6", "7", "8", "9"}, receiveAcked(t, messages, 6))
	held[0].Ack()
}

func TestGroup_UnnamedEachGetEveryMessage(t *testing.T) {
	h := newHouse(t, buffstreams.ManagerConfig{})
	sub := h.newSubscriber(t, func(c *buffstreams.SubscriberConfig) { c.ConsumerGroup = "" })
	one, two := subscribe(t, sub, h.topic("a")), subscribe(t, sub, h.topic("a"))
	require.NoError(t, h.newPublisher(t, nil).Publish(h.topic("a"), newMessages(5)...))
	require.Equal(t, payloads(newMessages(5)), receiveAcked(t, one, 5))
	require.Equal(t, payloads(newMessages(5)), receiveAcked(t, two, 5))
}

// TestSubscription_UnackedMessagesGoBackToTheirGroup: a sibling that lives gets them before what waits. An ack after Close
// has no effect.
func TestSubscription_UnackedMessagesGoBackToTheirGroup(t *testing.T) {
	h := newHouse(t, buffstreams.ManagerConfig{})
	first := h.newSubscriber(t, func(c *buffstreams.SubscriberConfig) {
		c.MaxInFlight, c.CloseTimeout = 2, 50*time.Millisecond
	})
	messages := subscribe(t, first, h.topic("a"))
	require.NoError(t, h.newPublisher(t, nil).Publish(h.topic("a"), newMessages(5)...))
	held := []*message.Message{receive(t, messages), receive(t, messages)}
	sibling := subscribe(t, h.newSubscriber(t, nil), h.topic("a"))
	third := receive(t, sibling)
	require.Equal(t, "2", string(third.Payload))
	require.NoError(t, first.Close())
	held[0].Ack()
	third.Ack()
	require.Equal(t, []string{"0", "1", "3", "4"}, receiveAcked(t, sibling, 4))
}

func TestSubscription_CancelledEmitsNothing(t *testing.T) {
	h := newHouse(t, buffstreams.ManagerConfig{})
	sub := h.newSubscriber(t, nil)
	require.NoError(t, sub.SubscribeInitialize(h.topic("a")))
	require.NoError(t, h.newPublisher(t, nil).Publish(h.topic("a"), newMessages(5)...))
	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	for range 200 { // the close must not have to win a race
		messages, err := sub.Subscribe(cancelled, h.topic("a"))
		require.NoError(t, err)
		msg, open := <-messages
		require.False(t, open, "%v", msg)
	}
	require.Equal(t, payloads(newMessages(5)), receiveAcked(t, subscribe(t, sub, h.topic("a")), 5))
}

func TestSubscription_ReadingNothingGivesItsMessageToAnIdleOne(t *testing.T) {
	h := newHouse(t, buffstreams.ManagerConfig{})
	_ = subscribe(t, h.newSubscriber(t, nil), h.topic("a")) // nobody reads this
	pub := h.newPublisher(t, nil)
	require.NoError(t, pub.Publish(h.topic("a"), newMessage("x"), newMessage("y")))
	reading := subscribe(t, h.newSubscriber(t, nil), h.topic("a"))
	require.ElementsMatch(t, []string{"x", "y"}, receiveAcked(t, reading, 2))
}

func TestGroup_DeclaredHoldMessagesBack(t *testing.T) {
	groups := map[string][]string{"a": {"one", "two"}}
	h := newHouse(t, buffstreams.ManagerConfig{Acked: buffstreams.AckedConfig{Groups: groups}})
	group := func(name string) *buffstreams.Subscriber {
		return h.newSubscriber(t, func(c *buffstreams.SubscriberConfig) { c.ConsumerGroup = name })
	}
	one := subscribe(t, group("one"), h.topic("a"))
	pub := h.newPublisher(t, nil)
	result := later(func() error { return pub.Publish(h.topic("a"), newMessage("x")) })
	select {
	case <-one:
		require.Fail(t, "a message arrived before the second group existed")
	case <-time.After(100 * time.Millisecond):
	}
	two := subscribe(t, group("two"), h.topic("a"))
	require.NoError(t, requireResult(t, result))
	receiveAcked(t, one, 1)
	receiveAcked(t, two, 1)
}

func TestUndecodable(t *testing.T) {
	h := newHouse(t, buffstreams.ManagerConfig{})
	h.publisher.Marshaler = buffstreams.RawMarshaler{} // what it writes is no envelope

	t.Run("is rejected to the publisher", func(t *testing.T) {
		messages := subscribe(t, h.newSubscriber(t, nil), h.topic("a"))
		var refused atomic.Int32
		pub := h.newPublisher(t, func(c *buffstreams.PublisherConfig) {
			c.Confirm = buffstreams.ConfirmHandled
			c.OnFailure = func(topic string, encoded []byte, err error) {
				assert.Equal(t, "a", topic)
				assert.Equal(t, "\xff\xff", string(encoded))
				refused.Add(1)
			}
		})
		var peer *buffstreams.PeerError
		require.ErrorAs(t, pub.Publish(h.topic("a"), newMessage("\xff\xff")), &peer)
		require.ErrorIs(t, peer, buffstreams.ErrUndecodable)
		require.Eventually(t, func() bool { return refused.Load() == 1 }, patience, time.Millisecond)
		result := later(func() error { return pub.Publish(h.topic("a"), newMessage("")) })
		require.Equal(t, []string{""}, receiveAcked(t, messages, 1), "the subscription goes on")
		require.NoError(t, requireResult(t, result))
	})
	t.Run("is emitted where asked for", func(t *testing.T) {
		messages := subscribe(t, h.newSubscriber(t, func(c *buffstreams.SubscriberConfig) { c.EmitUndecodable = true }), h.topic("b"))
		require.NoError(t, h.newPublisher(t, nil).Publish(h.topic("b"), newMessage("\xff\xff")))
		msg := receive(t, messages)
		require.Equal(t, "\xff\xff", string(msg.Payload))
		require.NotEmpty(t, msg.Metadata.Get(buffstreams.UndecodableKey))
		msg.Ack()
	})
}

// TestPublisher_CloseHasDeliveredEverything: the window is far smaller than what is published, it is full when Close
// begins, and the connection is lost then.
func TestPublisher_CloseHasDeliveredEverything(t *testing.T) {
	const goroutines, count, window = 10, 1000, 256
	n := newNetwork(t, 0, 0)
	h := newHouse(t, buffstreams.ManagerConfig{Dial: n.dial, Acked: quick(buffstreams.AckedConfig{WindowMessages: window})})
	messages := subscribe(t, h.newSubscriber(t, nil), h.topic("a"))
	pub := h.newPublisher(t, func(c *buffstreams.PublisherConfig) { c.Confirm = buffstreams.ConfirmEnqueued })
	publishers := publishNumbered(t, pub, h.topic("a"), goroutines, count)
	var seen order
	take := func(n int) {
		for range n {
			msg := receive(t, messages)
			seen.see(t, string(msg.Payload))
			msg.Ack()
		}
	}
	take(goroutines*count - window)
	publishers.Wait()
	closed := later(pub.Close)
	n.cut()
	n.restore()
	take(window)
	require.NoError(t, requireResult(t, closed))
	require.NoError(t, pub.Close())
	require.Zero(t, seen.duplicates)
}

func TestTopic_BadOnesAreErrors(t *testing.T) {
	h := newHouse(t, buffstreams.ManagerConfig{})
	pub, sub := h.newPublisher(t, nil), h.newSubscriber(t, nil)
	for _, topic := range []string{"logical", "tcp://nowhere", "udp://127.0.0.1:1/x", "unix://relative#x", ""} {
		require.ErrorIs(t, pub.Publish(topic, newMessage("x")), buffstreams.ErrBadTopic, topic)
		_, err := sub.Subscribe(context.Background(), topic)
		require.ErrorIs(t, err, buffstreams.ErrBadTopic, topic)
	}
	_, err := sub.Subscribe(context.Background(), "0.0.0.0:0/x")
	require.ErrorIs(t, err, buffstreams.ErrInsecureAddress)
	require.NotErrorIs(t, err, buffstreams.ErrBadTopic)
}
