package tests

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/route"
)

// marshalFunc is a Marshaler.
type marshalFunc func(dst []byte, msg *message.Message) ([]byte, error)

func (f marshalFunc) Marshal(dst []byte, _ string, msg *message.Message) ([]byte, error) {
	return f(dst, msg)
}

// TestPublisher_TakesWhatAMarshalerReturns: the user's own may ignore the slice that it is given, keep what it returns, or
// return a slice that begins like the library's own bytes.
func TestPublisher_TakesWhatAMarshalerReturns(t *testing.T) {
	kept := []byte("kept: ")
	for name, m := range map[string]marshalFunc{
		"memory of its own": func(_ []byte, msg *message.Message) ([]byte, error) { return bytes.Clone(msg.Payload), nil },
		"memory it uses again": func(_ []byte, msg *message.Message) ([]byte, error) {
			kept = append(kept[:0], msg.Payload...)
			return kept, nil
		},
		"appended": func(dst []byte, msg *message.Message) ([]byte, error) { return append(dst, msg.Payload...), nil },
		"a part of the room": func(dst []byte, msg *message.Message) ([]byte, error) {
			return append(dst, append([]byte("xx"), msg.Payload...)...)[2:], nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t, buffstreams.ManagerConfig{})
			messages := subscribe(t, h.newSubscriber(t, func(c *buffstreams.SubscriberConfig) { c.Unmarshaler = buffstreams.RawMarshaler{} }), h.topic("a"))
			pub := h.newPublisher(t, func(c *buffstreams.PublisherConfig) { c.Marshaler = m })
			want := []string{"\x22\x00\x00", "b", string(make([]byte, 40<<10)), "\x22", "e"}
			var msgs []*message.Message
			for _, payload := range want {
				msgs = append(msgs, message.NewMessage("", []byte(payload)))
			}
			require.NoError(t, pub.Publish(h.topic("a"), msgs...))
			require.Equal(t, want, receiveAcked(t, messages, len(want)))
		})
	}
}

// TestPublisher_SurvivesSenselessInput: each is an error of its own call, nothing of the call is sent, and the next one is as
// if nothing had happened.
func TestPublisher_SurvivesSenselessInput(t *testing.T) {
	h := newHouse(t, buffstreams.ManagerConfig{})
	messages := subscribe(t, h.newSubscriber(t, nil), h.topic("a"))
	broken := errors.New("broken")
	pub := h.newPublisher(t, func(c *buffstreams.PublisherConfig) {
		c.Marshaler = marshalFunc(func(dst []byte, msg *message.Message) ([]byte, error) {
			switch msg.UUID {
			case "panics":
				panic("oops")
			case "fails":
				return dst, broken
			case "returns nothing":
				return nil, nil
			}
			return buffstreams.EnvelopeMarshaler{}.Marshal(dst, "", msg)
		})
	})
	for _, bad := range []*message.Message{
		message.NewMessage("panics", nil), message.NewMessage("fails", nil), message.NewMessage("returns nothing", nil), nil,
	} {
		err := pub.Publish(h.topic("a"), newMessage("before it"), bad)
		var failed *buffstreams.PublishError
		require.ErrorAs(t, err, &failed)
		require.Len(t, failed.NotSent, 2)
	}
	require.NoError(t, pub.Publish(h.topic("a"), &message.Message{UUID: "a literal", Payload: []byte("literal")}))
	require.Equal(t, []string{"literal"}, receiveAcked(t, messages, 1))
}

// TestPublisher_OnFailureMayPublishToTheSamePeer, which needs the acks that come after the refusal.
func TestPublisher_OnFailureMayPublishToTheSamePeer(t *testing.T) {
	h := newHouse(t, buffstreams.ManagerConfig{})
	sub := h.newSubscriber(t, func(c *buffstreams.SubscriberConfig) { c.MaxAttempts = 1 })
	messages, dead := subscribe(t, sub, h.topic("a")), subscribe(t, sub, h.topic("dead"))
	var pub *buffstreams.Publisher
	result := make(chan error, 10)
	pub = h.newPublisher(t, func(c *buffstreams.PublisherConfig) {
		c.OnFailure = func(_ string, encoded []byte, _ error) {
			result <- pub.Publish(h.topic("dead"), message.NewMessage("d", encoded))
		}
	})
	require.NoError(t, pub.Publish(h.topic("a"), newMessage("x")))
	receive(t, messages).Nack()
	receiveAcked(t, dead, 1)
	require.NoError(t, <-result)
}

// TestPublisher_OnFailureThatBlocksOrPanicsHoldsUpNoOther: acks of the same peer go on, and Close ends in its time and says why.
func TestPublisher_OnFailureThatBlocksOrPanicsHoldsUpNoOther(t *testing.T) {
	t.Parallel()
	h := newHouse(t, buffstreams.ManagerConfig{})
	sub := h.newSubscriber(t, func(c *buffstreams.SubscriberConfig) { c.MaxAttempts = 1 })
	bad, good := subscribe(t, sub, h.topic("bad")), subscribe(t, sub, h.topic("good"))
	release, entered := make(chan struct{}), make(chan struct{}, 10)
	cfg := h.publisher
	cfg.Confirm, cfg.CloseTimeout = buffstreams.ConfirmHandled, 200*time.Millisecond
	calls := 0
	cfg.OnFailure = func(string, []byte, error) {
		if calls++; calls == 1 {
			panic("oops")
		}
		entered <- struct{}{}
		<-release
	}
	pub, err := buffstreams.NewPublisher(cfg, nil)
	require.NoError(t, err)
	for range 2 {
		failed := later(func() error { return pub.Publish(h.topic("bad"), newMessage("x")) })
		receive(t, bad).Nack()
		require.Error(t, requireResult(t, failed))
	}
	<-entered
	handled := later(func() error { return pub.Publish(h.topic("good"), newMessage("y")) })
	receiveAcked(t, good, 1)
	require.NoError(t, requireResult(t, handled))

	first, second := later(pub.Close), later(pub.Close)
	require.ErrorContains(t, requireResult(t, first), "OnFailure")
	require.ErrorContains(t, requireResult(t, second), "OnFailure", "every Close tells the same")
	close(release)
}

// blocking is a Resolver that heeds nothing, its context neither.
type blocking struct{ release chan struct{} }

func (b blocking) Resolve(context.Context, string) (route.Route, error) {
	<-b.release
	return route.Route{}, errors.New("too late")
}

func TestPublisher_AResolverThatBlocksIsBounded(t *testing.T) {
	release := make(chan struct{})
	pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{
		Resolver: blocking{release}, PublishTimeout: 100 * time.Millisecond, CloseTimeout: 100 * time.Millisecond,
	}, nil)
	require.NoError(t, err)
	err = pub.Publish("orders", newMessage("x"))
	require.ErrorIs(t, err, buffstreams.ErrTimeout)
	require.ErrorContains(t, err, "Resolver", "a time-out says why")
	require.NoError(t, pub.Close())
	close(release)
}

func TestPublisher_AResolverThatPanicsFailsItsCall(t *testing.T) {
	for name, resolve := range map[string]route.Func{
		"panics":       func(context.Context, string) (route.Route, error) { panic("oops") },
		"no addresses": func(context.Context, string) (route.Route, error) { return route.Route{}, nil },
		"no policy": func(context.Context, string) (route.Route, error) {
			return route.Route{Addresses: []string{"127.0.0.1:1"}, Policy: 99}, nil
		},
	} {
		pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{Resolver: resolve}, nil)
		require.NoError(t, err)
		var failed *buffstreams.PublishError
		require.ErrorAs(t, pub.Publish("orders", newMessage("x")), &failed, name)
		require.NoError(t, pub.Close())
	}
}

// TestPubSub_TakesPlainNamesWithColons: a scheme of ours or an IP address makes an address, a number after a colon does not.
func TestPubSub_TakesPlainNamesWithColons(t *testing.T) {
	ps, err := buffstreams.NewPubSub(buffstreams.PubSubConfig{}, nil)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, ps.Close()) })
	for _, topic := range []string{"tenant:42", "orders.v1:80", "a:1/b", "localhost:5031", "tenant:42:orders", "events://orders"} {
		messages, err := ps.Subscribe(t.Context(), topic)
		require.NoError(t, err, topic)
		require.NoError(t, ps.Publish(topic, newMessage(topic)), topic)
		require.Equal(t, []string{topic}, receiveAcked(t, messages, 1))
	}
}
