package buffstreams

import (
	"context"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAContextEndsWithItsDelivery(t *testing.T) {
	type key struct{}
	base := context.WithValue(context.Background(), key{}, "value")
	for name, asked := range map[string]bool{"somebody asked for Done": true, "nobody did": false} {
		t.Run(name, func(t *testing.T) {
			c := &messageContext{of: &subscription{base: base}}
			require.NoError(t, c.Err())
			if asked {
				select {
				case <-c.Done():
					t.Fatal("it is over before the delivery is")
				default:
				}
			}
			c.end()
			<-c.Done()
			require.ErrorIs(t, c.Err(), context.Canceled)
			require.Equal(t, "value", c.Value(key{}), "it is its subscription's also afterwards")
		})
	}
}

func TestAContextEndsWithItsSubscription(t *testing.T) {
	base, cut := context.WithCancel(context.Background())
	c := &messageContext{of: &subscription{base: base}}
	done := c.Done()
	cut()
	<-done
	require.ErrorIs(t, c.Err(), context.Canceled)
}

// Whoever asks while the delivery ends is told all the same.
func TestAContextThatIsAskedWhileItEnds(t *testing.T) {
	for range 1000 {
		c := &messageContext{of: &subscription{base: context.Background()}}
		var all sync.WaitGroup
		for range 2 {
			all.Go(func() { <-c.Done() }) // ends with the context
		}
		c.end()
		all.Wait()
	}
}
