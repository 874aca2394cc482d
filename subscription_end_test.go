package buffstreams

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
)

// lasting is the context of an application: it does not end, and counts what waits for that.
type lasting struct {
	context.Context
	done    chan struct{}
	waiting atomic.Int32
}

func (l *lasting) Done() <-chan struct{} { return l.done }

// AfterFunc is what package context calls where there is one.
func (l *lasting) AfterFunc(func()) func() bool {
	l.waiting.Add(1)
	return func() bool { l.waiting.Add(-1); return true }
}

// Subscriptions that come and go leave nothing with what outlives them: their Subscriber, their Manager, and the context of the
// application.
func TestSubscription_LeavesNothingBehind(t *testing.T) {
	testkit.CheckLeaks(t)
	m := newTestManager(t, ManagerConfig{})
	app := &lasting{Context: context.Background(), done: make(chan struct{})}
	for range 10 {
		sub, err := NewSubscriber(SubscriberConfig{Manager: m, CloseTimeout: time.Second}, nil)
		require.NoError(t, err)
		for range 3 {
			_, err := sub.Subscribe(app, "127.0.0.1:0/orders")
			require.NoError(t, err)
		}
		require.EqualValues(t, 3, app.waiting.Load())
		require.Len(t, m.subscriptions.all, 3)
		require.NoError(t, sub.Close())
		require.Zero(t, app.waiting.Load())
		require.Empty(t, m.subscriptions.all)
		require.Empty(t, sub.subs)
	}
	require.NoError(t, m.Close())
}
