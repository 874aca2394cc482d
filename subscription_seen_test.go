package buffstreams

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/netio"
	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
)

// The wait before another delivery doubles with each, up to its cap.
func TestSubscription_DelaysDouble(t *testing.T) {
	s := &subscription{subscriber: &Subscriber{cfg: SubscriberConfig{NackResendSleep: 10, NackResendCap: 50}}}
	for attempt, want := range []time.Duration{1: 10, 2: 20, 3: 40, 4: 50, 5: 50, 1 << 10: 50} {
		if want > 0 {
			require.Equal(t, want, s.delay(attempt), "%d", attempt)
		}
	}
}

// While the user's code has a message, Stats shows since when a handler has had an older one.
func TestStats_ShowTheOldestWhileAKeyIsAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		goOn := make(chan struct{})
		topic := newBubbleTopic(t)
		sub := topic.subscribe(t.Context(), SubscriberConfig{MaxInFlight: 2, Key: func(m *message.Message) string {
			if string(m.Payload) == "1" {
				<-goOn
			}
			return string(m.Payload)
		}})
		began := time.Now()
		topic.feed(2)
		require.Equal(t, 1, sub.stats().Offered)
		first := next(t, sub)
		require.Zero(t, sub.stats().Offered)
		time.Sleep(time.Minute)
		require.Equal(t, began, sub.stats().OldestInFlight)
		close(goOn)
		second := next(t, sub)
		first.Ack()
		second.Ack()
		synctest.Wait()
		require.Zero(t, sub.stats().OldestInFlight)
	})
}

// Dead letters that cannot be published are a line of the log a minute, with how often that was. One whose publisher does not return is
// another matter, which the line of the subscription's end is about.
func TestDeadLetter_FailuresAreLoggedNowAndThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := testkit.NewLog()
		topic := newBubbleTopic(t)
		topic.logger = log
		stuck, calls := make(chan struct{}), 0
		sub := topic.subscribe(t.Context(), SubscriberConfig{
			MaxAttempts: 1, NackResendSleep: NoSleep, DeadLetterTopic: "dead", DeadLetter: publishFunc(func() error {
				if calls++; calls == 1001 {
					<-stuck
				}
				return errBlocked
			}),
		})
		topic.feed(1)
		next(t, sub).Nack()
		time.Sleep(1000 * deadLetterRetry)
		synctest.Wait()
		require.Equal(t, 1001, calls)
		var counts []any
		for _, line := range linesOf(log) {
			if line.Msg == "Cannot publish to the dead letters, trying again" {
				counts = append(counts, line.Fields["count"])
			}
		}
		require.Equal(t, []any{1, 600}, counts)
		time.Sleep(time.Minute)
		sub.expire()
		<-sub.done
		lines := linesOf(log)
		require.Len(t, lines, 1)
		require.Equal(t, "A subscription ended without its callbacks", lines[0].Msg)
		require.ErrorContains(t, lines[0].Err, nameDeadLetter)
		close(stuck)
	})
}

// Listeners are shown in the order of their addresses, and those of a Subscriber are where it has subscriptions.
func TestStats_ListenersAreInOrder(t *testing.T) {
	m := newTestManager(t, ManagerConfig{})
	var all []string
	for i := range 9 {
		all = append(all, fmt.Sprintf("127.0.0.%d:0", i+1))
		_, err := m.listen(netio.Target{Network: "tcp", Address: all[i]})
		require.NoError(t, err)
	}
	sub, err := NewSubscriber(SubscriberConfig{Manager: m}, nil)
	require.NoError(t, err)
	defer func() { require.NoError(t, sub.Close()) }()
	for _, topic := range []string{"127.0.0.3:0/b", "127.0.0.2:0/a"} {
		_, err = sub.Subscribe(t.Context(), topic)
		require.NoError(t, err)
	}
	addresses := func(all []ListenerStats) (got []string) {
		for _, l := range all {
			got = append(got, l.Address)
		}
		return got
	}
	require.Equal(t, all, addresses(m.Stats().Listeners))
	require.Equal(t, all[1:3], addresses(sub.Stats().Listeners))
	require.Equal(t, "127.0.0.2:0/a", sub.Stats().Subscriptions[0].Topic)
}

// What a drain offers still, as no sender keeps it, is offered as it was: it was not seen before.
func TestDrain_LeavesInPlaceWhatIsKeptByNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		topic := newBubbleTopic(t)
		topic.source.gone.Store(true)
		sub := topic.subscribe(ctx, SubscriberConfig{MaxInFlight: 2, CloseTimeout: time.Minute})
		topic.feed(3)
		cancel()
		synctest.Wait()
		for i := range 3 {
			msg := next(t, sub)
			d, ok := DeliveryFromContext(msg.Context())
			require.True(t, ok)
			require.Equal(t, Delivery{Attempt: 1}, d)
			require.Equal(t, fmt.Sprint(i), string(msg.Payload))
			msg.Ack()
			synctest.Wait()
		}
		<-sub.done
		require.EqualValues(t, 3, topic.source.settled.Load())
	})
}

// What a PubSub leaves undelivered is told to the OnFailure that is nearest: its Manager's, its Subscriber's, its Publisher's.
func TestPubSub_TellsTheNearestOnFailure(t *testing.T) {
	for given, want := range map[string]string{
		"manager subscriber publisher": "manager", "manager publisher": "manager", "subscriber publisher": "subscriber", "publisher": "publisher",
	} {
		var told []string
		by := func(name string) func(string, []byte, error) {
			return func(string, []byte, error) { told = append(told, name) }
		}
		var cfg PubSubConfig
		if strings.Contains(given, "manager") {
			cfg.Manager.OnFailure = by("manager")
		}
		if strings.Contains(given, "subscriber") {
			cfg.Subscriber.OnFailure = func(*message.Message, error) { told = append(told, "subscriber") }
		}
		cfg.Publisher.OnFailure = by("publisher")
		ps, err := NewPubSub(cfg, nil)
		require.NoError(t, err)
		ps.Subscriber.manager.cfg.OnFailure("orders", nil, ErrUndelivered)
		require.Equal(t, []string{want}, told)
		require.NoError(t, ps.Close())
	}
}
