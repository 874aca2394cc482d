package tests

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/message/router/middleware"
	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
)

// nackAll nacks every message of the given payload, acks the others, and returns how often it saw each.
func nackAll(messages <-chan *message.Message, bad string, counts chan<- map[string]int) {
	seen := map[string]int{}
	for msg := range messages {
		seen[string(msg.Payload)]++
		if strings.HasPrefix(string(msg.Payload), bad) {
			msg.Nack()
		} else {
			msg.Ack()
		}
	}
	counts <- seen
}

func TestMaxAttempts_RejectsToThePublisher(t *testing.T) {
	h := newHouse(t, buffstreams.ManagerConfig{})
	failed := make(chan string, 1)
	sub := h.newSubscriber(t, func(c *buffstreams.SubscriberConfig) {
		c.MaxAttempts = 3
		c.OnFailure = func(msg *message.Message, reason error) {
			var spent *buffstreams.AttemptsExhaustedError
			if errors.As(reason, &spent) && spent.Attempts == 3 {
				failed <- string(msg.Payload)
			}
		}
	})
	counts := make(chan map[string]int, 1)
	messages := subscribe(t, sub, h.topic("a"))
	go nackAll(messages, "bad", counts)
	pub := h.newPublisher(t, func(c *buffstreams.PublisherConfig) { c.Confirm = buffstreams.ConfirmHandled })
	err := pub.Publish(h.topic("a"), newMessage("good"), newMessage("bad"), newMessage("next"))
	var peer *buffstreams.PeerError
	require.ErrorAs(t, err, &peer)
	require.ErrorIs(t, peer, buffstreams.ErrHandlingFailed)
	require.Equal(t, "bad", <-failed)
	require.NoError(t, pub.Publish(h.topic("a"), newMessage("last")))
	require.NoError(t, sub.Close())
	require.Equal(t, map[string]int{"good": 1, "bad": 3, "next": 1, "last": 1}, <-counts)
}

// TestMaxAge: a message is delivered again for as long as MaxAge says, not less, and never after that.
func TestMaxAge(t *testing.T) {
	t.Parallel()
	const age = 2 * time.Second // in which it comes more than once
	h := newHouse(t, buffstreams.ManagerConfig{})
	failed := make(chan error, 1)
	sub := h.newSubscriber(t, func(c *buffstreams.SubscriberConfig) {
		c.MaxAge, c.OnFailure = age, func(_ *message.Message, reason error) { failed <- reason }
	})
	counts := make(chan map[string]int, 1)
	messages := subscribe(t, sub, h.topic("a"))
	go nackAll(messages, "bad", counts)
	pub := h.newPublisher(t, func(c *buffstreams.PublisherConfig) { c.Confirm = buffstreams.ConfirmHandled })
	require.ErrorIs(t, pub.Publish(h.topic("a"), newMessage("bad")), buffstreams.ErrHandlingFailed)
	var spent *buffstreams.AttemptsExhaustedError
	require.ErrorAs(t, <-failed, &spent)
	require.GreaterOrEqual(t, spent.Age, age)
	require.Greater(t, spent.Attempts, 1)
	require.NoError(t, pub.Publish(h.topic("a"), newMessage("next")), "what is behind it comes")
	require.NoError(t, sub.Close())
	require.Equal(t, map[string]int{"bad": spent.Attempts, "next": 1}, <-counts)
}

// flaky is a publisher that fails a few times.
type flaky struct {
	message.Publisher
	failures int
}

func (f *flaky) Publish(topic string, messages ...*message.Message) error {
	if f.failures--; f.failures >= 0 {
		return errors.New("not now")
	}
	return f.Publisher.Publish(topic, messages...)
}

func TestDeadLetter(t *testing.T) {
	h := newHouse(t, buffstreams.ManagerConfig{})
	letters := subscribe(t, h.newSubscriber(t, nil), h.topic("dead"))
	sub := h.newSubscriber(t, func(c *buffstreams.SubscriberConfig) {
		c.MaxAttempts = 2
		c.DeadLetter, c.DeadLetterTopic = &flaky{h.newPublisher(t, nil), 2}, h.topic("dead")
	})
	counts := make(chan map[string]int, 1)
	messages := subscribe(t, sub, h.topic("a"))
	go nackAll(messages, "bad", counts)
	pub := h.newPublisher(t, func(c *buffstreams.PublisherConfig) { c.Confirm = buffstreams.ConfirmHandled })
	bad := newMessage("bad")
	bad.Metadata.Set("key", "value")
	require.NoError(t, pub.Publish(h.topic("a"), bad, newMessage("good")), "a dead letter counts as handled")

	msg := receive(t, letters)
	require.Equal(t, bad.UUID, msg.UUID)
	require.Equal(t, "value", msg.Metadata.Get("key"))
	require.Contains(t, msg.Metadata.Get(middleware.ReasonForPoisonedKey), "2 attempts")
	require.Equal(t, h.topic("a"), msg.Metadata.Get(middleware.PoisonedTopicKey))
	msg.Ack()

	raw := h.newPublisher(t, func(c *buffstreams.PublisherConfig) { c.Marshaler = buffstreams.RawMarshaler{} })
	require.NoError(t, raw.Publish(h.topic("a"), newMessage("\xff")))
	msg = receive(t, letters)
	require.Equal(t, "\xff", string(msg.Payload))
	require.NotEmpty(t, msg.Metadata.Get(buffstreams.UndecodableKey))
	msg.Ack()
	require.NoError(t, sub.Close())
	require.Equal(t, map[string]int{"bad": 2, "good": 1}, <-counts)
}
