package tests

import (
	"context"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
)

// dialDeaf connects to a peer that never reads, and has no buffer.
func dialDeaf(context.Context, string, string) (net.Conn, error) {
	conn, _ := net.Pipe()
	return conn, nil
}

// dialSilent waits for its context.
func dialSilent(ctx context.Context, _, _ string) (net.Conn, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func plainConfig(dial func(context.Context, string, string) (net.Conn, error)) buffstreams.PublisherConfig {
	return buffstreams.PublisherConfig{
		Wire: buffstreams.WireBuffStreams, Confirm: buffstreams.ConfirmEnqueued, MaxMessageSize: 64 << 10,
		PublishTimeout: time.Second, CloseTimeout: 3 * time.Second, ManagerConfig: buffstreams.ManagerConfig{Dial: dial},
	}
}

// fill publishes more than a writer takes without sending, and returns what that came to.
func fill(pub *buffstreams.Publisher) *buffstreams.PublishError {
	messages := newMessages(60)
	for _, m := range messages {
		m.Payload = make([]byte, 60<<10)
	}
	err, _ := pub.Publish("127.0.0.1:1", messages...).(*buffstreams.PublishError) //nolint:errorlint // it has to be just that
	return err
}

// TestPlainPublisher_EndsInItsTime: a peer that never reads bounds neither Publish nor Close, and all is accounted for.
func TestPlainPublisher_EndsInItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var failed failures
		cfg := plainConfig(dialDeaf)
		cfg.OnFailure = failed.add
		pub, err := buffstreams.NewPublisher(cfg, nil)
		require.NoError(t, err)
		begin := time.Now()
		notAll := fill(pub)
		require.NotNil(t, notAll)
		require.ErrorIs(t, notAll, buffstreams.ErrTimeout)
		require.Equal(t, time.Second, time.Since(begin))
		require.NotEmpty(t, notAll.NotSent)

		more := later(func() error { return pub.Publish("127.0.0.1:1", notAll.NotSent...) })
		synctest.Wait()
		begin = time.Now()
		require.Error(t, pub.Close())
		require.LessOrEqual(t, time.Since(begin), 4*time.Second)
		require.Error(t, <-more)
		require.Len(t, failed.errs, 60-len(notAll.NotSent), "each that was taken, and no other, is given to OnFailure")
	})
}

// TestManager_CloseOfPlainWritersEndsInItsTime: those of a Publisher that is still there too, whatever its own time-out.
func TestManager_CloseOfPlainWritersEndsInItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, err := buffstreams.NewManager(buffstreams.ManagerConfig{Dial: dialDeaf, CloseTimeout: 2 * time.Second})
		require.NoError(t, err)
		cfg := plainConfig(nil)
		cfg.Manager, cfg.CloseTimeout = m, time.Minute
		pub, err := buffstreams.NewPublisher(cfg, nil)
		require.NoError(t, err)
		require.NotNil(t, fill(pub))
		begin := time.Now()
		require.Error(t, m.Close())
		require.LessOrEqual(t, time.Since(begin), 3*time.Second)
		_ = pub.Close() // the Manager has said what became of the messages
	})
}

// TestPlainPublisher_SharesOneDial: calls that need the same connection wait for the same attempt, each in its time.
func TestPlainPublisher_SharesOneDial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var dials atomic.Int32
		pub, err := buffstreams.NewPublisher(plainConfig(func(ctx context.Context, network, address string) (net.Conn, error) {
			dials.Add(1)
			return dialSilent(ctx, network, address)
		}), nil)
		require.NoError(t, err)
		begin := time.Now()
		first := later(func() error { return pub.Publish("127.0.0.1:1", newMessages(1)...) })
		second := later(func() error { return pub.Publish("127.0.0.1:1", newMessages(1)...) })
		require.ErrorIs(t, <-first, buffstreams.ErrTimeout)
		require.ErrorIs(t, <-second, buffstreams.ErrTimeout)
		require.Equal(t, time.Second, time.Since(begin))
		require.EqualValues(t, 1, dials.Load())
		require.NoError(t, pub.Close(), "nothing was taken")
		require.Equal(t, time.Second, time.Since(begin))
	})
}

// TestPlainPublisher_FlushesWhatAnotherConnected: a Publisher answers for what it has written, whichever of its Manager has dialed.
func TestPlainPublisher_FlushesWhatAnotherConnected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, err := buffstreams.NewManager(buffstreams.ManagerConfig{Dial: dialDeaf, CloseTimeout: time.Second})
		require.NoError(t, err)
		cfg := plainConfig(nil)
		cfg.Manager, cfg.CloseTimeout = m, time.Second
		first, err := buffstreams.NewPublisher(cfg, nil)
		require.NoError(t, err)
		require.NoError(t, first.Publish("127.0.0.1:1", newMessages(1)...))
		second, err := buffstreams.NewPublisher(cfg, nil)
		require.NoError(t, err)
		require.NoError(t, second.Publish("127.0.0.1:1", newMessages(1)...))
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		require.ErrorIs(t, second.Flush(ctx), context.DeadlineExceeded)
		require.ErrorIs(t, second.Close(), context.DeadlineExceeded)
		require.ErrorIs(t, first.Close(), context.DeadlineExceeded)
		require.ErrorContains(t, m.Close(), "2 accepted messages")
	})
}
