package tests

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/route"
)

// TestAll_CallIsConfirmedByWhatRemains when an address leaves the route that has not handled the message, or has not even got it. What
// the address has got is still counted.
func TestAll_CallIsConfirmedByWhatRemains(t *testing.T) {
	t.Parallel()
	for _, reached := range []bool{true, false} {
		stays, leaves := freeAddress(t), freeAddress(t)
		got := counting(t, stays)
		pub, w := changing(t, route.Route{Addresses: []string{stays, leaves}, Policy: route.All}, buffstreams.ConfirmHandled)
		handled := func() {}
		if reached {
			sub, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{ListenAddress: leaves}, nil)
			require.NoError(t, err)
			t.Cleanup(func() { _ = sub.Close() })
			held := subscribe(t, sub, "orders")
			handled = func() { receive(t, held).Ack() }
		}
		call := later(func() error { return pub.Publish("orders", newMessages(3)...) })
		require.Eventually(t, func() bool { return got.Load() == 3 }, patience, time.Millisecond)
		select {
		case err := <-call:
			require.Fail(t, "it has not waited", "%v", err)
		case <-time.After(100 * time.Millisecond):
		}
		w.set(route.Route{Addresses: []string{stays}, Policy: route.All})
		require.NoError(t, requireResult(t, call))
		if reached {
			requirePending(t, pub, 3)
			for range 3 {
				handled()
			}
		}
		require.NoError(t, pub.Drain(t.Context()))
		require.NoError(t, pub.Close())
	}
}

// TestAll_CallFollowsARouteThatIsReplaced as a whole before anything was sent.
func TestAll_CallFollowsARouteThatIsReplaced(t *testing.T) {
	for _, n := range []int{1, 2} {
		var dead []string
		for range n {
			dead = append(dead, freeAddress(t))
		}
		home := freeAddress(t)
		got := counting(t, home)
		pub, w := changing(t, route.Route{Addresses: dead, Policy: route.All}, buffstreams.ConfirmHandled)
		call := later(func() error { return pub.Publish("orders", newMessages(3)...) })
		require.Eventually(t, func() bool { s := pub.Stats().Topics; return len(s) == 1 && s[0].Calls == 1 }, patience, 10*time.Millisecond)
		w.set(route.Route{Addresses: []string{home}, Policy: route.All})
		require.NoError(t, requireResult(t, call))
		require.EqualValues(t, 3, got.Load())
		require.NoError(t, pub.Close())
	}
}
