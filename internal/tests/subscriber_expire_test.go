package tests

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/hooks"
)

// stuckLost is a hook that does not return.
type stuckLost struct{ release chan struct{} }

func (s stuckLost) OnLost(hooks.Lost) { <-s.release }

// TestSubscriber_CloseThatOutlastsItsTimeIsNoLoop: a hook holds up the Manager before its listener begins to end. A handler that
// nacks as soon as its message's context ends gets the message back no more: not over and over while the Close lasts.
func TestSubscriber_CloseThatOutlastsItsTimeIsNoLoop(t *testing.T) {
	stuck := stuckLost{make(chan struct{})}
	ps, err := buffstreams.NewPubSub(buffstreams.PubSubConfig{
		Subscriber: buffstreams.SubscriberConfig{CloseTimeout: 100 * time.Millisecond, NackResendSleep: 10 * time.Millisecond},
		Manager:    buffstreams.ManagerConfig{Hooks: []hooks.Hook{stuck}},
	}, nil)
	require.NoError(t, err)
	messages, err := ps.Subscribe(context.Background(), "a")
	require.NoError(t, err)
	require.NoError(t, ps.Publish("a", newMessage("x")))
	late := 0 // deliveries whose time is over before a handler has them
	ended := make(chan struct{})
	go func() { // ends with the channel
		defer close(ended)
		for m := range messages {
			if m.Context().Err() != nil {
				late++
			}
			m.Nack()
		}
	}()
	closed := later(ps.Close)
	select {
	case <-ended:
	case <-time.After(patience):
		require.Fail(t, "the channel is not closed")
	}
	close(stuck.release)
	if err := requireResult(t, closed); err != nil {
		require.NotContains(t, err.Error(), "Hooks", "the channel was closed in its time, and not when the Close gave the hook up")
	}
	require.LessOrEqual(t, late, 1, "one can be in the channel in that moment")
}
