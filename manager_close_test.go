package buffstreams

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// Close waits for what the Manager has started, such as the ends of addresses that nothing uses any more.
func TestManager_CloseWaitsForItsGoroutines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, err := NewManager(ManagerConfig{})
		require.NoError(t, err)
		goOn, closed := make(chan struct{}), make(chan error, 1)
		m.wg.Go(func() { <-goOn })          // ends with goOn
		go func() { closed <- m.Close() }() // ends with it
		synctest.Wait()
		require.Empty(t, closed)
		close(goOn)
		require.NoError(t, <-closed)
	})
}

// What a Manager that was closed has taken along is not settled.
func TestPublisher_DrainIsNotNilAfterItsManagersClose(t *testing.T) {
	m := newTestManager(t, ManagerConfig{})
	p := newStatsPair(t, PublisherConfig{Manager: m}, SubscriberConfig{CloseTimeout: time.Millisecond})
	out, err := p.sub.Subscribe(context.Background(), "127.0.0.1:0/orders")
	require.NoError(t, err)
	require.NoError(t, p.pub.Publish(p.topic, textMessage("order")))
	<-out
	require.NoError(t, m.Close(), "everything is received")
	require.ErrorIs(t, p.pub.Drain(context.Background()), ErrManagerClosed)
}
