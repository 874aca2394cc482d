package buffstreams

import (
	"errors"
	"testing"
	"testing/synctest"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/hooks"
	"github.com/buffstreams/watermill-buffstreams/internal/hook"
	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
)

// letters is a publisher of dead letters, which writes into what it gets, and fails so many times.
type letters struct {
	failures int
	got      []*message.Message
	payloads []string
}

func (l *letters) Publish(_ string, messages ...*message.Message) error {
	l.payloads = append(l.payloads, string(messages[0].Payload))
	messages[0].Payload[0] = '!'
	if l.failures > 0 {
		l.failures--
		return errors.New("no")
	}
	l.got = append(l.got, messages...)
	return nil
}

func (*letters) Close() error { return nil }

// deadWatcher notes what was given up.
type deadWatcher struct{ saw []hooks.DeadLettered }

func (w *deadWatcher) OnDeadLettered(e hooks.DeadLettered) { w.saw = append(w.saw, e) }

// TestDeadLetter_IsAsWatermillsToolsKnowIt, has the bytes that arrived with each attempt, and is told of once.
func TestDeadLetter_IsAsWatermillsToolsKnowIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dead, watcher := &letters{failures: 2}, &deadWatcher{}
		topic := newBubbleTopic(t)
		sub := topic.subscribe(t.Context(), SubscriberConfig{
			MaxAttempts: 1, NackResendSleep: NoSleep, DeadLetter: dead, DeadLetterTopic: "dead",
		})
		sub.subscriber.manager.hooks = hook.NewSet([]hooks.Hook{watcher}, testkit.NewLog())
		topic.feed(1)
		next(t, sub).Nack()
		topic.feed(1)
		next(t, sub).Ack()
		synctest.Wait()
		require.Equal(t, []string{"0", "0", "0"}, dead.payloads)
		require.Len(t, dead.got, 1)
		require.Equal(t, message.Metadata{
			"reason_poisoned": dead.got[0].Metadata["reason_poisoned"], "topic_poisoned": "orders", "subscriber_poisoned": "buffstreams.Subscriber",
		}, dead.got[0].Metadata)
		require.Contains(t, dead.got[0].Metadata["reason_poisoned"], "not handled in 1 attempts")
		require.Len(t, watcher.saw, 1)
		require.Equal(t, "dead", watcher.saw[0].To)
		require.ErrorAs(t, watcher.saw[0].Reason, new(*AttemptsExhaustedError))
		require.EqualValues(t, 1, sub.deadLettered.Load())
	})
}
