package buffstreams

import (
	"fmt"
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
		first := next(t, sub)
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
