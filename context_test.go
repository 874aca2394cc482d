package buffstreams

import (
	"context"
	"math"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestMessageContext_EndsWithItsDelivery(t *testing.T) {
	type key struct{}
	base := context.WithValue(context.Background(), key{}, "value")
	for name, called := range map[string]bool{"Done was called": true, "Done was not called": false} {
		t.Run(name, func(t *testing.T) {
			c := &messageContext{sub: &subscription{base: base}}
			require.NoError(t, c.Err())
			if called {
				select {
				case <-c.Done():
					t.Fatal("the context ended before the delivery")
				default:
				}
			}
			c.end()
			<-c.Done()
			require.ErrorIs(t, c.Err(), context.Canceled)
			require.Equal(t, "value", c.Value(key{}), "values are the subscription's, also afterwards")
		})
	}
}

func TestMessageContext_EndsWithItsSubscription(t *testing.T) {
	base, cancel := context.WithCancel(context.Background())
	c := &messageContext{sub: &subscription{base: base}}
	done := c.Done()
	cancel()
	<-done
	require.ErrorIs(t, c.Err(), context.Canceled)
}

// A call of Done that races with the end of the delivery gets a channel that is closed.
func TestMessageContext_DoneWhileTheDeliveryEnds(t *testing.T) {
	for range 1000 {
		c := &messageContext{sub: &subscription{base: context.Background()}}
		var all sync.WaitGroup
		for range 2 {
			all.Go(func() { <-c.Done() }) // Ends with the context; the test waits for it.
		}
		c.end()
		all.Wait()
	}
}

// The longest delay there is waits as long, and does not overflow.
func TestRedeliverAfter_TheLongestDelay(t *testing.T) {
	c := &messageContext{sub: &subscription{base: context.Background()}}
	for _, delay := range []time.Duration{math.MaxInt64, math.MaxInt64 - 1} {
		require.True(t, RedeliverAfter(c, delay))
		got, ok := c.redeliverAfter()
		require.True(t, ok)
		require.Greater(t, got, 200*365*24*time.Hour)
	}
	for _, delay := range []time.Duration{-1, math.MinInt64} {
		require.True(t, RedeliverAfter(c, delay))
		_, ok := c.redeliverAfter()
		require.False(t, ok)
	}
}

// What handlers derive from a message's context costs no goroutine.
func TestMessageContext_ChildrenAttachToIt(t *testing.T) {
	c := &messageContext{sub: &subscription{base: t.Context()}}
	child, cancel := context.WithCancel(c)
	defer cancel()
	stacks := make([]byte, 1<<20)
	require.NotContains(t, string(stacks[:runtime.Stack(stacks, true)]), "propagateCancel")
	c.end()
	require.ErrorIs(t, child.Err(), context.Canceled)
}
