package buffstreams

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/dispatch"
	"github.com/buffstreams/watermill-buffstreams/internal/flow"
)

// bubbleTopic is a topic in a bubble, without a listener.
type bubbleTopic struct {
	*dispatch.Topic
	t      *testing.T
	logger watermill.LoggerAdapter // of what subscribes
	source *bubbleSource
	from   dispatch.Source // of what is fed; nil: source
	next   uint64
}

// bubbleSource is where its messages come from.
type bubbleSource struct {
	countingSource
	gone atomic.Bool // nothing keeps its messages
}

func (s *bubbleSource) Kept() bool { return !s.gone.Load() }

func newBubbleTopic(t *testing.T) *bubbleTopic {
	t.Helper()
	window := flow.NewWindow(flow.Amount{Messages: 1000, Bytes: 1 << 20}, flow.NewBudget(1<<20))
	topic := dispatch.NewTopic("orders", window, func(n int) int { return n })
	require.True(t, topic.Initialize("g"))
	return &bubbleTopic{Topic: topic, t: t, logger: watermill.NopLogger{}, source: &bubbleSource{}}
}

// subscribe begins a subscription of the topic's group.
func (b *bubbleTopic) subscribe(ctx context.Context, cfg SubscriberConfig) *subscription {
	b.t.Helper()
	cfg.ConsumerGroup, cfg.Unmarshaler = "g", RawMarshaler{}
	cfg.setDefaults()
	s := &Subscriber{cfg: cfg, manager: &Manager{}, logger: b.logger, subs: map[*subscription]struct{}{}}
	sub := newSubscription(ctx, s, "orders", b.Topic, &stillListener{done: make(chan struct{})})
	b.t.Cleanup(func() {
		sub.expire()
		<-sub.done
	})
	return sub
}

// feed appends so many messages, whose payloads are their numbers from 0 on, and waits until they are where they go.
func (b *bubbleTopic) feed(count int) {
	b.t.Helper()
	from := b.from
	if from == nil {
		from = b.source
	}
	for range count {
		payload := fmt.Appendf(nil, "%d", b.next)
		room := flow.Amount{Messages: 1, Bytes: len(payload)}
		require.Equal(b.t, room, b.Window().Take(room))
		b.next++
		b.Append(from, b.next, [][]byte{payload}, time.Now(), nil)
	}
	synctest.Wait()
}

// next returns the next message that one of the subscriptions emits, which must not take long.
func next(t *testing.T, subs ...*subscription) *message.Message {
	t.Helper()
	for began := time.Now(); time.Since(began) < time.Second; time.Sleep(time.Millisecond) {
		for _, sub := range subs {
			select {
			case msg, ok := <-sub.out:
				require.True(t, ok, "the channel is closed")
				return msg
			default:
			}
		}
	}
	require.Fail(t, "no message is emitted")
	return nil
}

// Members of a group that do not read give what they are offered to one another, and whichever reads gets it: also those that had
// given it away before.
func TestSubscription_TakesAgainWhatItGaveAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		topic := newBubbleTopic(t)
		a, b := topic.subscribe(t.Context(), SubscriberConfig{}), topic.subscribe(t.Context(), SubscriberConfig{})
		for range 3 {
			topic.feed(2)
			time.Sleep(20 * yieldAfter)
			for range 2 {
				msg := next(t, a, b)
				d, ok := DeliveryFromContext(msg.Context())
				require.True(t, ok)
				require.Equal(t, 1, d.Attempt)
				msg.Ack()
				synctest.Wait()
			}
		}
		third := topic.subscribe(t.Context(), SubscriberConfig{})
		topic.feed(1)
		time.Sleep(20 * yieldAfter)
		next(t, third, a, b).Ack()
		synctest.Wait()
		require.EqualValues(t, 7, topic.source.settled.Load())
	})
}

// A member offers no more than some messages that its siblings could have; one that is alone offers as many as it may.
func TestSubscription_OffersFewBesideSiblings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		topic := newBubbleTopic(t)
		alone := topic.subscribe(t.Context(), SubscriberConfig{MaxInFlight: 100})
		topic.feed(100)
		require.Len(t, alone.out, 100)

		topic = newBubbleTopic(t)
		a, b := topic.subscribe(t.Context(), SubscriberConfig{MaxInFlight: 100}), topic.subscribe(t.Context(), SubscriberConfig{MaxInFlight: 100})
		topic.feed(100)
		require.LessOrEqual(t, len(a.out), maxShared)
		require.LessOrEqual(t, len(b.out), maxShared)
		for range 100 {
			next(t, a).Ack()
			synctest.Wait()
		}
	})
}

// A message that is over MaxAge has failed with the delivery that took that long, if it is the first.
func TestMaxAge_CountsTheFirstDelivery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		failed := make(chan error, 1)
		topic := newBubbleTopic(t)
		sub := topic.subscribe(t.Context(), SubscriberConfig{
			MaxAge: time.Second, NackResendSleep: NoSleep, OnFailure: func(_ *message.Message, reason error) { failed <- reason },
		})
		topic.feed(1)
		msg := next(t, sub)
		time.Sleep(time.Second)
		msg.Nack()
		synctest.Wait()
		var spent *AttemptsExhaustedError
		require.ErrorAs(t, <-failed, &spent)
		require.Equal(t, 1, spent.Attempts)
		require.Empty(t, sub.out)
	})
}

// failing is a publisher that counts its calls by what they publish, takes nothing for long, and writes into what it is given.
type failing map[string]int

func (f failing) Close() error { return nil }

func (f failing) Publish(_ string, messages ...*message.Message) error {
	for _, msg := range messages {
		if f[string(msg.Payload)]++; f[string(msg.Payload)] > 20 {
			return nil // it would go on for ever
		}
		clear(msg.Payload)
	}
	return errBlocked
}

// A dead letter that cannot be published is tried again as it was, after a pause, also where nacks have none.
func TestDeadLetter_IsTriedAgainAfterAPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		letters := failing{}
		topic := newBubbleTopic(t)
		sub := topic.subscribe(t.Context(), SubscriberConfig{
			MaxAttempts: 1, NackResendSleep: NoSleep, DeadLetter: letters, DeadLetterTopic: "dead",
		})
		topic.feed(1)
		next(t, sub).Nack()
		time.Sleep(10*deadLetterRetry - time.Millisecond)
		synctest.Wait()
		require.Equal(t, failing{"0": 10}, letters)
	})
}

// A subscription with a Key that was cancelled takes what its sender keeps only to know its key.
func TestDrain_EmitsNothingOfAKeyThatASenderKeeps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		topic := newBubbleTopic(t)
		sub := topic.subscribe(ctx, SubscriberConfig{
			MaxInFlight: 4, CloseTimeout: time.Minute, Key: func(m *message.Message) string { return string(m.Payload) },
		})
		topic.feed(1)
		first := next(t, sub)
		topic.feed(2)
		cancel()
		topic.feed(2)
		require.Empty(t, sub.out)
		first.Ack()
		_, open := <-sub.out
		require.False(t, open)
		<-sub.done
		require.Equal(t, 4, topic.Backlog("g"))
		require.EqualValues(t, 1, topic.source.settled.Load())
	})
}

// A subscription that drains leaves what it has offered to a member of its group that comes meanwhile.
func TestDrain_EndsWhenAMemberComes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		topic := newBubbleTopic(t)
		topic.source.gone.Store(true)
		sub := topic.subscribe(ctx, SubscriberConfig{MaxInFlight: 2, CloseTimeout: time.Minute})
		topic.feed(3)
		cancel()
		synctest.Wait()
		require.Len(t, sub.out, 2, "nothing else has them")
		successor := topic.subscribe(t.Context(), SubscriberConfig{})
		for range 3 {
			next(t, successor).Ack()
			synctest.Wait()
		}
		require.EqualValues(t, 3, topic.source.settled.Load())
	})
}

// What was nacked and waits for the pump when the subscription ends goes back to the group: at the beginning of a drain what
// its sender keeps, at the end all.
func TestDrain_GivesRedeliveriesBack(t *testing.T) {
	for name, end := range map[string]func(*pump){"at first": (*pump).giveBackKept, "at last": (*pump).stop} {
		synctest.Test(t, func(t *testing.T) {
			topic := newBubbleTopic(t)
			p := &pump{subscription: &subscription{
				out: make(chan *message.Message, 1), halted: make(chan struct{}), member: topic.Join("g", func() {}),
			}}
			topic.feed(1)
			d, _, ok := p.member.Take()
			require.True(t, ok)
			p.redeliveries = []dispatch.Delivery{d}
			p.watched.Store(1)
			end(p)
			require.Equal(t, 1, topic.Backlog("g"), name)
			if name == "at first" {
				require.True(t, p.isIdle(), "nothing is left to be handled")
			}
		})
	}
}

// A callback that returns soon after the end of its subscription has returned; a later one is left behind.
func TestUserCode_HasAMomentAfterTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		base, cancel := context.WithCancel(t.Context())
		s := &subscription{base: base}
		cancel()
		failed := errors.New("it heeds the end")
		returned, err := s.call(nameDeadLetter, func() error { time.Sleep(closeGrace / 2); return failed })
		require.True(t, returned)
		require.ErrorIs(t, err, failed)
		require.NoError(t, s.code.late())
		returned, _ = s.call(nameDeadLetter, func() error { time.Sleep(2 * closeGrace); return failed })
		require.False(t, returned)
		require.ErrorContains(t, s.code.late(), nameDeadLetter+" has not returned within CloseTimeout: 1 calls are left")
		time.Sleep(2 * closeGrace)
		require.NoError(t, s.code.late())
	})
}
