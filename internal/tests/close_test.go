package tests

import (
	"context"
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
)

var errNobody = errors.New("nobody is there")

// dialNobody is a Dial that never connects.
func dialNobody(context.Context, string, string) (net.Conn, error) { return nil, errNobody }

// requireSameEnd calls a Close n times side by side, and once more when it has ended: all return the same, the first n at the
// same moment, when want is over.
func requireSameEnd(t *testing.T, n int, want time.Duration, closer func() error) {
	t.Helper()
	begin := time.Now()
	var results []<-chan error
	for range n {
		results = append(results, later(closer))
		synctest.Wait() // the calls before are under way, and wait
	}
	err := <-results[0]
	require.Equal(t, want, time.Since(begin))
	for _, r := range results[1:] {
		require.Equal(t, err, <-r)
	}
	require.Equal(t, err, closer())
	require.Equal(t, want, time.Since(begin), "none waits longer")
	requireUndelivered(t, err, "a", 1)
}

// TestPublisher_CloseSideBySide: the calls wait for the same end, under a clock that is not real as well.
func TestPublisher_CloseSideBySide(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{
			Confirm: buffstreams.ConfirmEnqueued, CloseTimeout: 3 * time.Second,
			ManagerConfig: buffstreams.ManagerConfig{Dial: dialNobody},
		}, nil)
		require.NoError(t, err)
		require.NoError(t, pub.Publish("127.0.0.1:1/a", newMessages(1)...))
		requireSameEnd(t, 3, 3*time.Second, pub.Close)
	})
}

func TestManager_CloseSideBySide(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, err := buffstreams.NewManager(buffstreams.ManagerConfig{Dial: dialNobody, CloseTimeout: 2 * time.Second})
		require.NoError(t, err)
		pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{Manager: m, Confirm: buffstreams.ConfirmEnqueued}, nil)
		require.NoError(t, err)
		require.NoError(t, pub.Publish("127.0.0.1:1/a", newMessages(1)...))
		requireSameEnd(t, 3, 2*time.Second, m.Close)
		requireUndelivered(t, pub.Close(), "a", 1)
	})
}
