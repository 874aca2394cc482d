package buffstreams

import (
	"context"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/flow"
	"github.com/buffstreams/watermill-buffstreams/internal/session"
	"github.com/buffstreams/watermill-buffstreams/route"
)

// openedListener is one that was opened.
type openedListener struct{ stillListener }

func (*openedListener) Hold(bool) {}

// TestManager_OpensAListenerOnce: who comes while it is opened waits, and gets the same.
func TestManager_OpensAListenerOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, err := NewManager(ManagerConfig{CloseTimeout: time.Second})
		require.NoError(t, err)
		goOn, built, opened := make(chan struct{}), 0, make(chan listener, 2)
		only := &openedListener{}
		for range 2 {
			go func() { // ends with goOn
				l, err := m.open(anyPort, func() (listener, error) { built++; <-goOn; return only, nil })
				if err == nil {
					opened <- l
				}
			}()
		}
		synctest.Wait()
		require.Empty(t, opened)
		close(goOn)
		synctest.Wait()
		require.Equal(t, 1, built)
		require.Len(t, opened, 2)
		require.Same(t, only, <-opened)
		require.Same(t, only, <-opened)
		delete(m.listeners, anyPort) // it does not close
		require.NoError(t, m.Close())
	})
}

// TestIdentity_IsOfOneSender: a receiver that knows one could pose as this side elsewhere, if another were alike in a part.
func TestIdentity_IsOfOneSender(t *testing.T) {
	one, other := newIdentity(), newIdentity()
	require.NotZero(t, one.Publisher)
	require.NotZero(t, one.Secret)
	require.NotEqual(t, one.Publisher, other.Publisher)
	require.NotEqual(t, one.Secret, other.Secret)
	require.NotEqual(t, one.Publisher, one.Secret)
}

// TestManager_ForgetsAPublisherThatHasClosed, though it lives on itself.
func TestManager_ForgetsAPublisherThatHasClosed(t *testing.T) {
	m := newTestManager(t, ManagerConfig{})
	p, err := NewPublisher(PublisherConfig{
		Manager: m, Resolver: route.Static{"*": {Addresses: []string{"127.0.0.1:1", "127.0.0.1:2"}}}, CloseTimeout: time.Millisecond,
	}, nil)
	require.NoError(t, err)
	_, err = p.routeOf("orders", math.MaxInt64)
	require.NoError(t, err)
	_, err = p.routeOf("refunds", math.MaxInt64)
	require.NoError(t, err)
	require.Equal(t, []*Publisher{p}, m.routing)
	require.Zero(t, p.topics["orders"].calls.Load(), "a look at its route does not keep a topic")
	require.NoError(t, p.Close())
	require.Empty(t, m.routing)
}

// TestPublisher_RouteIsWaitedForNoLongerThanSaid, whatever PublishTimeout is.
func TestPublisher_RouteIsWaitedForNoLongerThanSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, timeout := range []time.Duration{-1, time.Hour, time.Second} {
			p, err := NewPublisher(PublisherConfig{
				Resolver: route.Func(func(ctx context.Context, _ string) (route.Route, error) {
					<-ctx.Done()
					return route.Route{}, ctx.Err()
				}),
				PublishTimeout: timeout,
			}, nil)
			require.NoError(t, err)
			began := time.Now()
			_, err = p.routeOf("orders", 5*time.Second)
			require.Error(t, err)
			want := 5 * time.Second
			if timeout == time.Second {
				want = timeout
			}
			require.Equal(t, want, time.Since(began))
			require.NoError(t, p.Close())
		}
	})
}

// TestManager_OpensNothingOnceItIsClosed, for a Subscriber that shares it and lives on.
func TestManager_OpensNothingOnceItIsClosed(t *testing.T) {
	m := newTestManager(t, ManagerConfig{})
	sub, err := NewSubscriber(SubscriberConfig{Manager: m}, nil)
	require.NoError(t, err)
	require.NoError(t, m.Close())
	_, err = sub.Subscribe(t.Context(), "127.0.0.1:0/orders")
	require.ErrorIs(t, err, ErrManagerClosed)
	require.ErrorIs(t, sub.SubscribeInitialize("127.0.0.1:0/orders"), ErrManagerClosed)
	require.Empty(t, m.listeners)
	_, err = m.use(anyPort)
	require.ErrorIs(t, err, ErrManagerClosed)
	require.NoError(t, sub.Close())
	_, err = sub.Subscribe(t.Context(), "127.0.0.1:0/orders")
	require.ErrorIs(t, err, ErrSubscriberClosed)
}

// TestBudget_HasRoomForAMessageBesideWhatOthersHold, of any size that is valid.
func TestBudget_HasRoomForAMessageBesideWhatOthersHold(t *testing.T) {
	b := newBudget(AckedConfig{MemoryLimit: 10_000, MaxMessageSize: 4000})
	hoard := b.NewAccount(flow.Present)
	for hoard.Take(500, 500, nil) == 500 {
	}
	large := session.EncodedSize(4000)
	require.Equal(t, large, b.NewAccount(flow.Present).Take(large, large, nil))
}
