package tests

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/route"
	"github.com/buffstreams/watermill-buffstreams/storage/outbox"
	"github.com/buffstreams/watermill-buffstreams/store"
)

// fixedOutbox is an outbox that cannot note any other place of a stream once it is fixed, and counts who has tried.
type fixedOutbox struct {
	*outbox.Outbox
	fixed atomic.Bool
	tried atomic.Int64
}

func (o *fixedOutbox) SetPlace(ctx context.Context, k store.Key, p store.Place) error {
	if o.fixed.Load() {
		o.tried.Add(1)
		return errors.New("fixed")
	}
	return o.Outbox.SetPlace(ctx, k, p)
}

// TestOutboxPlace_GoesOnWhereTheRouteComesBack: messages that were taken back from an address go there again, when that is where they
// should be after all: before they could move, or when the outbox could not note that.
func TestOutboxPlace_GoesOnWhereTheRouteComesBack(t *testing.T) {
	t.Parallel()
	for name, fails := range map[string]bool{"before it moves": false, "after a move that failed": true} {
		t.Run(name, func(t *testing.T) { goesOn(t, fails) })
	}
}

func goesOn(t *testing.T, fails bool) {
	a, b := freeAddress(t), freeAddress(t)
	subA, atA := handingAt(t, a)
	atB := handing(t, b)
	w := &watched{route: route.Route{Addresses: []string{a}}}
	m, err := buffstreams.NewManager(buffstreams.ManagerConfig{Acked: quick(buffstreams.AckedConfig{MoveAfter: time.Hour})})
	require.NoError(t, err)
	t.Cleanup(func() { _ = m.Close() })
	ob := &fixedOutbox{Outbox: openOutbox(t, t.TempDir())}
	pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{Manager: m, Resolver: w, Outbox: ob, CloseTimeout: time.Second}, nil)
	require.NoError(t, err)
	t.Cleanup(func() { _ = pub.Close() })
	require.NoError(t, pub.Publish("orders", newMessages(5)...))
	busy := receive(t, atA)
	lag := func() int { return subA.Stats().Listeners[0].Topics[0].Groups[0].Lag }
	require.Eventually(t, func() bool { return lag() == 5 }, patience, 10*time.Millisecond)
	require.Eventually(t, w.isWatched, patience, time.Millisecond)
	ob.fixed.Store(true)
	w.set(route.Route{Addresses: []string{b}})
	require.Eventually(t, func() bool { return lag() == 1 }, patience, 10*time.Millisecond, "what no handler has is taken back")
	if fails {
		busy.Ack()
		require.Eventually(t, func() bool { return ob.tried.Load() > 0 }, patience, time.Millisecond)
	}
	w.set(route.Route{Addresses: []string{a}})
	busy.Ack()
	for range 4 {
		receive(t, atA).Ack()
	}
	drain(t, pub)
	require.Empty(t, atB)
}
