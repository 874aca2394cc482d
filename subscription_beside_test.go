package buffstreams

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/dispatch"
	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
)

// Of a Manager that is shared, one subscription's end waits for none that lives on, and the end of a listener ends no other's.
func TestSubscription_EndsBesideOthers(t *testing.T) {
	m := newTestManager(t, ManagerConfig{})
	subscribe := func(topic string) (*Subscriber, <-chan *message.Message) {
		s, err := NewSubscriber(SubscriberConfig{Manager: m, CloseTimeout: time.Hour}, nil)
		require.NoError(t, err)
		out, err := s.Subscribe(context.Background(), topic)
		require.NoError(t, err)
		return s, out
	}
	one, _ := subscribe("127.0.0.1:0/orders")
	two, second := subscribe("127.0.0.2:0/orders")
	three, third := subscribe("127.0.0.2:0/refunds")
	closed := make(chan error, 1)
	go func() { closed <- three.Close() }() // ends with Close
	require.NoError(t, testkit.Receive(t, closed))
	_, open := <-third
	require.False(t, open)

	pub, err := NewPublisher(PublisherConfig{CloseTimeout: time.Second}, nil)
	require.NoError(t, err)
	defer func() { require.NoError(t, pub.Close()) }()
	addr, err := two.Addr("127.0.0.2:0/orders")
	require.NoError(t, err)
	require.NoError(t, pub.Publish(addr.String()+"/orders", textMessage("one")))
	msg := testkit.Receive(t, second)
	over, cancel := context.WithCancel(t.Context())
	cancel()
	require.NoError(t, m.CloseListener(over, "127.0.0.1:0"))
	require.NoError(t, msg.Context().Err())
	require.True(t, msg.Ack())
	require.NoError(t, one.Close())
	require.NoError(t, two.Close())
}

// A subscription has the time that its end was given, whatever its CloseTimeout is.
func TestSubscription_EndsInTheTimeThatItHas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		topic := newBubbleTopic(t)
		sub := topic.subscribe(t.Context(), SubscriberConfig{CloseTimeout: time.Hour})
		topic.feed(1)
		msg, began := next(t, sub), time.Now()
		sub.close(began.Add(time.Second))
		<-msg.Context().Done()
		require.Equal(t, time.Second, time.Since(began))
		<-sub.done
		require.Less(t, time.Since(began), 2*time.Second)
		require.Equal(t, 1, topic.Backlog("g"))
	})
}

// syncingListener says how long it is waited for.
type syncingListener struct {
	stillListener
	left time.Duration
}

func (l *syncingListener) SyncAcks(ctx context.Context, _ *dispatch.Topic) {
	at, _ := ctx.Deadline()
	l.left = time.Until(at)
}

// Acks are waited for as long as there is time, and for a moment where there is none.
func TestSubscription_WaitsForItsAcks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, _, _ := stillPump(t, 1, SubscriberConfig{})
		l := &syncingListener{}
		for left, want := range map[time.Duration]time.Duration{-time.Hour: closeGrace, 0: closeGrace, time.Hour: time.Hour} {
			p.listener, p.deadline = l, time.Now().Add(left)
			p.syncAcks()
			require.Equal(t, want, l.left)
		}
	})
}

// A message that waits for another delivery when its subscription drains goes to a member that comes meanwhile at once.
func TestDrain_LeavesToAMemberWhatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		topic := newBubbleTopic(t)
		topic.source.gone.Store(true)
		sub := topic.subscribe(ctx, SubscriberConfig{CloseTimeout: time.Hour, NackResendSleep: time.Hour})
		topic.feed(1)
		next(t, sub).Nack()
		synctest.Wait()
		cancel()
		time.Sleep(time.Minute)
		require.Empty(t, sub.out, "it waits")
		successor := topic.subscribe(t.Context(), SubscriberConfig{})
		next(t, successor).Ack()
		synctest.Wait()
		require.EqualValues(t, 1, topic.source.settled.Load())
	})
}

// What was acked is handled, also where the subscription has no time left.
func TestWatcher_AnAckCountsAtTheEnd(t *testing.T) {
	base, cancel := context.WithCancel(t.Context())
	cancel()
	s := &subscription{base: base}
	msg, other := textMessage("one"), textMessage("two")
	msg.Ack()
	other.Nack()
	for range 50 { // a select of channels that are ready chooses any
		require.Equal(t, outcomeAcked, s.awaitOutcome(flight{msg: msg}, nil))
		require.Equal(t, outcomeClosed, s.awaitOutcome(flight{msg: other}, nil), "which is why it was nacked")
	}
}

// Messages whose time comes together are delivered again in the order in which they were nacked.
func TestRedelivery_KeepsOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, _, _ := stillPump(t, 3, SubscriberConfig{MaxInFlight: 3})
		for range 3 {
			nackOne(t, p)
		}
		for _, want := range []string{"0", "1", "2"} {
			f, ok := p.nextRedelivery()
			require.True(t, ok)
			require.Equal(t, want, string(f.msg.Payload))
			require.True(t, f.ctx.delivery.Redelivered)
		}
		require.Zero(t, p.watched.Load())
	})
}

// An OnFailure that panics has been told: its message has failed once, and is not lost to its publisher either.
func TestFailure_AnOnFailureThatPanicsWasTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		p, topic, source := stillPump(t, 1, SubscriberConfig{OnFailure: func(*message.Message, error) { calls++; panic("oops") }})
		log := testkit.NewLog()
		p.subscriber.logger = log
		d, _, ok := p.member.Take()
		require.True(t, ok)
		p.failAgain(d, errBlocked)
		require.Equal(t, 1, calls)
		require.Len(t, source.refused, 1)
		require.Zero(t, topic.Backlog("g"))
		require.Equal(t, 1, count(linesOf(log), "error", "OnFailure panicked"))
		require.Nil(t, source.refused[0].Unheard, "the Manager does not tell of it too")
	})
}

// The wait before a dead letter is tried again grows as that before another delivery does.
func TestDeadLetter_WaitsLongerEachTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var at []time.Duration
		last := time.Now()
		topic := newBubbleTopic(t)
		sub := topic.subscribe(t.Context(), SubscriberConfig{
			MaxAttempts: 1, NackResendSleep: time.Second, NackResendCap: 5 * time.Second, DeadLetterTopic: "dead",
			DeadLetter: publishFunc(func() error {
				at = append(at, time.Since(last))
				last = time.Now()
				if len(at) < 6 {
					return errBlocked
				}
				return nil
			}),
		})
		topic.feed(1)
		next(t, sub).Nack()
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Equal(t, []time.Duration{0, 1 * time.Second, 2 * time.Second, 4 * time.Second, 5 * time.Second, 5 * time.Second}, at)
		require.EqualValues(t, 1, topic.source.settled.Load())
	})
}

// With what drains, a subscription waits as long as it has time, but one whose topic ends with it waits for none.
func TestSubscription_WaitsForOthersThatDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, _, _ := stillPump(t, 1, SubscriberConfig{})
		other := &subscription{closing: make(chan struct{})}
		close(other.closing)
		p.subscriber.manager.subscriptions.add(other)
		for drains, want := range map[bool]time.Duration{false: 0, true: time.Minute} {
			began := time.Now()
			p.drains = drains
			func() {
				base, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				p.base = base
				p.awaitOthers()
			}()
			require.Equal(t, want, time.Since(began))
			require.True(t, p.drained.Load())
		}
	})
}
