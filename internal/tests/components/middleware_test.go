package components

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/components/delay"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/message/router/middleware"
	"github.com/sony/gobreaker"
	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
)

// behind runs a handler behind middlewares on topic "orders", and returns where to publish.
func behind(t *testing.T, p *pair, h message.NoPublishHandlerFunc, ms ...message.HandlerMiddleware) *buffstreams.Publisher {
	t.Helper()
	r := newRouter(t)
	r.AddMiddleware(ms...)
	r.AddConsumerHandler("h", "orders", p.subscriber(t, "g", nil), h)
	run(t, r)
	return p.publisher(t)
}

// failing returns a handler that fails the first n deliveries of each payload, and counts all of them.
func failing(n int, got *tally) message.NoPublishHandlerFunc {
	return func(m *message.Message) error {
		got.add(string(m.Payload))
		if got.count(string(m.Payload)) <= n {
			return errWanted
		}
		return nil
	}
}

func TestRetry_TriesWithinOneDelivery(t *testing.T) {
	p := newPair(t)
	var got tally
	var deliveries sync.Map
	pub := behind(t, p, failing(2, &got), func(h message.HandlerFunc) message.HandlerFunc {
		return func(m *message.Message) ([]*message.Message, error) {
			d, _ := buffstreams.DeliveryFromContext(m.Context())
			deliveries.Store(d.Attempt, true)
			return h(m)
		}
	}, middleware.Retry{MaxRetries: 3, InitialInterval: time.Millisecond}.Middleware)
	require.NoError(t, pub.Publish("orders", newMessages(2)...))
	require.Equal(t, []string{"0", "0", "0", "1", "1", "1"}, got.await(t, 6))
	_, second := deliveries.Load(2)
	require.False(t, second, "Retry is within one delivery")
}

func TestRetry_AfterItTheMessageComesAgain(t *testing.T) {
	p := newPair(t)
	var got tally
	pub := behind(t, p, failing(3, &got), middleware.Retry{MaxRetries: 1, InitialInterval: time.Millisecond}.Middleware)
	require.NoError(t, pub.Publish("orders", newMessages(2)...))
	require.Equal(t, []string{"0", "0", "0", "0", "1", "1", "1", "1"}, got.await(t, 8), "in order")
}

func TestPoisonQueue_OverTheSameTransport(t *testing.T) {
	p, grave := newPair(t), newPair(t)
	poison, err := middleware.PoisonQueueWithFilter(grave.publisher(t), "poison", func(err error) bool { return err == errWanted }) //nolint:errorlint // as it was returned
	require.NoError(t, err)
	dead, err := grave.subscriber(t, "d", nil).Subscribe(context.Background(), "poison")
	require.NoError(t, err)
	var got tally
	pub := behind(t, p, func(m *message.Message) error {
		got.add(string(m.Payload))
		if string(m.Payload) == "1" {
			return errWanted
		}
		return nil
	}, poison)
	require.NoError(t, pub.Publish("orders", newMessages(3)...))
	m := receive(t, dead)
	m.Ack()
	require.Equal(t, "1", string(m.Payload))
	require.Equal(t, "wanted", m.Metadata.Get(middleware.ReasonForPoisonedKey))
	require.Equal(t, "orders", m.Metadata.Get(middleware.PoisonedTopicKey))
	require.Equal(t, numbers(3), got.await(t, 3))
}

// While its peer is away a message stays with its own publisher's side: it is neither lost nor sent twice.
func TestPoisonQueue_ItsPeerIsAway(t *testing.T) {
	p := newPair(t)
	graves, address := newListening(t, buffstreams.ManagerConfig{})
	impatient, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{Manager: p.listens, PublishTimeout: 100 * time.Millisecond}, nil)
	require.NoError(t, err)
	t.Cleanup(func() { _ = impatient.Close() })
	poison, err := middleware.PoisonQueue(impatient, address+"/poison")
	require.NoError(t, err)
	var got tally
	pub := behind(t, p, func(m *message.Message) error { got.add(string(m.Payload)); return errWanted }, poison)
	require.NoError(t, pub.Publish("orders", newMessage("bad")))
	got.await(t, 3) // it comes again while the poison queue fails
	sub, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{Manager: graves, ConsumerGroup: "d"}, nil)
	require.NoError(t, err)
	t.Cleanup(func() { _ = sub.Close() })
	dead, err := sub.Subscribe(context.Background(), address+"/poison")
	require.NoError(t, err)
	m := receive(t, dead)
	m.Ack()
	require.Equal(t, "bad", string(m.Payload))
}

func TestRecoverer_APanicIsAFailure(t *testing.T) {
	p := newPair(t)
	var got tally
	pub := behind(t, p, func(m *message.Message) error {
		got.add(string(m.Payload))
		if got.count(string(m.Payload)) == 1 {
			panic("oops")
		}
		return nil
	}, middleware.Recoverer)
	require.NoError(t, pub.Publish("orders", newMessages(2)...))
	require.Equal(t, []string{"0", "0", "1", "1"}, got.await(t, 4))
}

func TestCorrelationID_Travels(t *testing.T) {
	p, results := newPair(t), newPair(t)
	r := newRouter(t)
	r.AddMiddleware(middleware.CorrelationID)
	out, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{Manager: p.listens}, nil)
	require.NoError(t, err)
	r.AddHandler("h", "orders", p.subscriber(t, "g", nil), results.topic("bills"), out,
		func(*message.Message) ([]*message.Message, error) { return newMessages(1), nil })
	run(t, r)
	bills, err := results.subscriber(t, "b", nil).Subscribe(context.Background(), "bills")
	require.NoError(t, err)
	order := newMessage("order")
	middleware.SetCorrelationID("7", order)
	require.NoError(t, p.publisher(t).Publish("orders", order))
	m := receive(t, bills)
	m.Ack()
	require.Equal(t, "7", middleware.MessageCorrelationID(m))
}

func TestTimeout_EndsTheMessagesContext(t *testing.T) {
	p := newPair(t)
	var got tally
	pub := behind(t, p, func(m *message.Message) error {
		if got.add("begun"); got.count("begun") == 1 {
			<-m.Context().Done()
			return m.Context().Err()
		}
		return nil
	}, middleware.Timeout(20*time.Millisecond))
	require.NoError(t, pub.Publish("orders", newMessage("x")))
	got.await(t, 2)
}

// Timeout leaves a cancelled context on the message. PoisonQueue publishes it all the same.
func TestTimeout_ThenPoisonQueue(t *testing.T) {
	p, grave := newPair(t), newPair(t)
	poison, err := middleware.PoisonQueue(grave.publisher(t), "poison")
	require.NoError(t, err)
	dead, err := grave.subscriber(t, "d", nil).Subscribe(context.Background(), "poison")
	require.NoError(t, err)
	pub := behind(t, p, func(m *message.Message) error { <-m.Context().Done(); return m.Context().Err() },
		poison, middleware.Timeout(10*time.Millisecond))
	require.NoError(t, pub.Publish("orders", newMessage("slow")))
	m := receive(t, dead)
	m.Ack()
	require.Equal(t, "slow", string(m.Payload))
}

func TestThrottle_HoldsMessagesBack(t *testing.T) {
	p := newPair(t)
	var got tally
	pub := behind(t, p, func(m *message.Message) error { got.add(string(m.Payload)); return nil },
		middleware.NewThrottle(1, 20*time.Millisecond).Middleware)
	began := time.Now()
	require.NoError(t, pub.Publish("orders", newMessages(5)...))
	require.Equal(t, numbers(5), got.await(t, 5))
	require.Greater(t, time.Since(began), 80*time.Millisecond)
}

func TestIgnoreErrors_Acks(t *testing.T) {
	p := newPair(t)
	var got tally
	pub := behind(t, p, func(m *message.Message) error { got.add(string(m.Payload)); return errWanted },
		middleware.NewIgnoreErrors([]error{errWanted}).Middleware)
	require.NoError(t, pub.Publish("orders", newMessages(3)...))
	require.Equal(t, numbers(3), got.await(t, 3))
}

// InstantAck gives away that a message is kept until it was handled: its handler's error changes nothing.
func TestInstantAck_HandlesAtMostOnce(t *testing.T) {
	p := newPair(t)
	var got tally
	pub := behind(t, p, func(m *message.Message) error { got.add(string(m.Payload)); return errWanted }, middleware.InstantAck)
	require.NoError(t, pub.Publish("orders", newMessages(3)...))
	require.ElementsMatch(t, numbers(3), got.await(t, 3), "handlers run side by side: acked messages leave room")
}

func TestDuplicator_HandlesTwice(t *testing.T) {
	p := newPair(t)
	var got tally
	pub := behind(t, p, func(m *message.Message) error { got.add(string(m.Payload)); return nil }, middleware.Duplicator)
	require.NoError(t, pub.Publish("orders", newMessages(2)...))
	require.Equal(t, []string{"0", "0", "1", "1"}, got.await(t, 4))
}

// A Deduplicator cannot tell a redelivery from a duplicate: what failed once is dropped when it comes again. With Retry
// inside it that takes a failure of all tries; with NewDeduplicator outside of anything that nacks it loses messages.
func TestDeduplicator_DropsDuplicatesAndRedeliveries(t *testing.T) {
	p := newPair(t)
	var got tally
	dedup := &middleware.Deduplicator{KeyFactory: middleware.NewMessageHasherFromMetadataField("id"), Timeout: time.Second}
	pub := behind(t, p, func(m *message.Message) error {
		got.add(string(m.Payload))
		if string(m.Payload) == "fails" {
			return errWanted
		}
		return nil
	}, dedup.Middleware)
	send := func(payload, id string) {
		m := newMessage(payload)
		m.Metadata.Set("id", id)
		require.NoError(t, pub.Publish("orders", m))
	}
	send("a", "1")
	send("a", "1")
	send("fails", "2")
	send("end", "3")
	require.Equal(t, []string{"a", "fails", "end"}, got.await(t, 3))
}

// DelayOnError writes metadata for a transport that delays by it. This one waits NackResendSleep, whatever is written; what
// a handler writes to a message is gone when it comes again.
func TestDelayOnError_DelaysNothing(t *testing.T) {
	p := newPair(t)
	var got tally
	d := &middleware.DelayOnError{InitialInterval: time.Hour, MaxInterval: time.Hour, Multiplier: 2}
	pub := behind(t, p, func(m *message.Message) error {
		got.add(m.Metadata.Get(delay.DelayedForKey))
		if len(got.all()) < 3 {
			return errWanted
		}
		return nil
	}, d.Middleware)
	require.NoError(t, pub.Publish("orders", newMessage("x")))
	require.Equal(t, []string{"", "", ""}, got.await(t, 3))
}

// An open breaker fails every delivery at once: the wait between them is NackResendSleep. Without a limit of attempts
// nothing is lost.
func TestCircuitBreaker_LosesNothing(t *testing.T) {
	p := newPair(t)
	var got tally
	var calls atomic.Int64
	cb := middleware.NewCircuitBreaker(gobreaker.Settings{
		Timeout: 50 * time.Millisecond, ReadyToTrip: func(c gobreaker.Counts) bool { return c.ConsecutiveFailures >= 2 },
	})
	pub := behind(t, p, func(m *message.Message) error {
		if calls.Add(1) <= 4 {
			return errWanted
		}
		got.add(string(m.Payload))
		return nil
	}, cb.Middleware)
	require.NoError(t, pub.Publish("orders", newMessages(5)...))
	require.Equal(t, numbers(5), got.await(t, 5))
}

// RandomFail and RandomPanic are for tests of one's own service: each message is handled in the end, in order.
func TestRandomFail_IsRedelivered(t *testing.T) {
	p := newPair(t)
	var got tally
	pub := behind(t, p, func(m *message.Message) error { got.add(string(m.Payload)); return nil },
		middleware.Recoverer, middleware.RandomFail(0.3), middleware.RandomPanic(0.2))
	require.NoError(t, pub.Publish("orders", newMessages(100)...))
	require.Equal(t, numbers(100), got.await(t, 100))
}

// An attempt that an open breaker refuses counts against MaxAttempts, although no handler ran.
func TestCircuitBreaker_UsesUpMaxAttempts(t *testing.T) {
	p := newPair(t)
	var calls, dead atomic.Int64
	cb := middleware.NewCircuitBreaker(gobreaker.Settings{
		Timeout: patience, ReadyToTrip: func(c gobreaker.Counts) bool { return c.ConsecutiveFailures >= 1 },
	})
	r := newRouter(t)
	r.AddMiddleware(cb.Middleware)
	sub := p.subscriber(t, "g", func(c *buffstreams.SubscriberConfig) {
		c.MaxAttempts = 3
		c.OnFailure = func(*message.Message, error) { dead.Add(1) }
	})
	r.AddConsumerHandler("h", "orders", sub, func(*message.Message) error { calls.Add(1); return errWanted })
	run(t, r)
	require.NoError(t, p.publisher(t).Publish("orders", newMessages(5)...))
	require.Eventually(t, func() bool { return dead.Load() == 5 }, patience, time.Millisecond)
	require.EqualValues(t, 1, calls.Load(), "put Retry outside of the breaker, or set no MaxAttempts")
}
