package buffstreams

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/route"
)

// TestStats_SinceWhenLookupsFail: since the first of those that failed one after another.
func TestStats_SinceWhenLookupsFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fails := true
		p, err := NewPublisher(PublisherConfig{
			PublishTimeout: time.Second,
			ManagerConfig: ManagerConfig{Dial: func(context.Context, string, string) (net.Conn, error) {
				return nil, errors.New("there is no network")
			}},
			Resolver: route.Func(func(context.Context, string) (route.Route, error) {
				if fails {
					return route.Route{}, errors.New("no answer")
				}
				return route.Route{Addresses: []string{"127.0.0.1:1"}}, nil
			}),
		}, nil)
		require.NoError(t, err)
		defer func() { _ = p.Close() }()
		since := func() time.Time {
			require.Error(t, p.Publish("orders", keyed("a")...))
			time.Sleep(2 * statsKept)
			return p.Stats().Topics[0].LookupFailing
		}
		began := time.Now()
		first := since()
		require.WithinRange(t, first, began, began.Add(time.Second))
		require.Equal(t, first, since())
		require.Contains(t, p.Stats().Topics[0].LookupError, "no answer")
		fails = false
		require.Zero(t, since())
	})
}

// TestLookup_IsAskedAgainForAnAddressThatHadFailed before the topic came: no connection of it is lost then.
func TestLookup_IsAskedAgainForAnAddressThatHadFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var lookups sync.Map
		p, err := NewPublisher(PublisherConfig{
			PublishTimeout: refreshEvery / 2,
			ManagerConfig: ManagerConfig{Dial: func(context.Context, string, string) (net.Conn, error) {
				return nil, errors.New("there is no network")
			}},
			Resolver: route.Func(func(_ context.Context, topic string) (route.Route, error) {
				n, _ := lookups.LoadOrStore(topic, new(atomic.Int64))
				n.(*atomic.Int64).Add(1)
				return route.Route{Addresses: []string{"127.0.0.1:1"}}, nil
			}),
		}, nil)
		require.NoError(t, err)
		defer func() { _ = p.Close() }()
		for _, topic := range []string{"fails at once", "had failed"} {
			require.Error(t, p.Publish(topic, keyed("a")...))
			n, _ := lookups.Load(topic)
			require.EqualValues(t, 2, n.(*atomic.Int64).Load(), topic)
		}
	})
}
