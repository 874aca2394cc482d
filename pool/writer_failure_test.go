package pool

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// losePeer ends the connection and keeps new ones from being made.
func losePeer(t *testing.T, network *pipes) {
	t.Helper()
	network.setDown(true)
	require.NoError(t, (<-network.servers).Close())
	synctest.Wait()
}

func writeNumbers(t *testing.T, w *Writer, from, to int) {
	t.Helper()
	for i := from; i < to; i++ {
		n, err := w.Write(fmt.Append(nil, i))
		require.NoError(t, err)
		require.Equal(t, len(fmt.Sprint(i)), n)
	}
}

func TestFailedMessagesGoToTheHandlerInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newPipes()
		failures := make(chan Failure, 10)
		w := dialTest(t, WriterConfig{Address: "peer:1", Dial: network.dial, OnFailure: func(f Failure) { failures <- f }})
		losePeer(t, network)
		writeNumbers(t, w, 0, 3)
		for i := range 3 {
			f := <-failures
			assert.Equal(t, "peer:1", f.Address)
			assert.Equal(t, fmt.Sprint(i), string(f.Payload))
			assert.ErrorIs(t, f.Err, errNetworkDown)
		}
		assert.Equal(t, 1+5, network.dialed(), "the first one, and five attempts")

		// The Writer lives on: the next message begins anew.
		network.setDown(false)
		writeNumbers(t, w, 3, 4)
		m, err := peerRead(<-network.servers, width4096)
		require.NoError(t, err)
		assert.Equal(t, "3", string(m))
		assert.NoError(t, w.Close(), "what the handler has got is not reported again")
	})
}

func TestFailedMessagesGoToTheChannelInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newPipes()
		failures := make(chan Failure) // full at once
		w := dialTest(t, WriterConfig{Address: "peer:1", Dial: network.dial, Failures: failures})
		losePeer(t, network)
		writeNumbers(t, w, 0, 3)
		time.Sleep(time.Minute) // of the bubble's clock: all attempts are over
		writeNumbers(t, w, 3, 6)
		time.Sleep(time.Hour)
		assert.Greater(t, network.dialed(), 20, "it goes on trying while there is no room for failures")
		for i := range 6 {
			assert.Equal(t, fmt.Sprint(i), string((<-failures).Payload))
		}
		assert.NoError(t, w.Close())
	})
}

func TestWithoutAHandlerTheNextCallTellsOnce(t *testing.T) {
	calls := map[string]func(*Writer) error{
		"Write": func(w *Writer) error { n, err := w.Write([]byte("not taken")); _ = n; return err },
		"Flush": func(w *Writer) error { return w.Flush(context.Background()) },
		"Close": (*Writer).Close,
	}
	for name, call := range calls {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network := newPipes()
				w := dialTest(t, WriterConfig{Address: "peer:1", Dial: network.dial})
				losePeer(t, network)
				writeNumbers(t, w, 0, 3)
				time.Sleep(time.Minute)
				var failed *FailedError
				require.ErrorAs(t, call(w), &failed)
				assert.Equal(t, 3, failed.Count)
				assert.ErrorIs(t, failed, errNetworkDown)
				if name != "Close" {
					assert.NoError(t, w.Flush(context.Background()), "it is told once")
					assert.NoError(t, w.Close())
				}
			})
		})
	}
}

func TestFlushTellsWhatFailedWhileItWaited(t *testing.T) {
	for _, handler := range []func(Failure){nil, func(Failure) {}} {
		synctest.Test(t, func(t *testing.T) {
			network := newPipes()
			w := dialTest(t, WriterConfig{Address: "peer:1", Dial: network.dial, OnFailure: handler})
			losePeer(t, network)
			writeNumbers(t, w, 0, 4)
			var failed *FailedError
			require.ErrorAs(t, w.Flush(context.Background()), &failed)
			assert.Equal(t, 4, failed.Count)
			assert.NoError(t, w.Close())
		})
	}
}

func TestAFullBufferWaitsForTheEndOfAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newPipes()
		w := dialTest(t, WriterConfig{
			Address: "peer:1", Dial: network.dial, BufferSize: 20,
			Retry: &RetryConfig{MaxAttempts: RetryForever},
		})
		losePeer(t, network)
		written := make(chan struct{})
		go func() { // ends after the outage
			defer close(written)
			writeNumbers(t, w, 0, 100)
		}()
		time.Sleep(24 * time.Hour)
		select {
		case <-written:
			t.Fatal("the buffer took more than its size")
		default:
		}
		network.setDown(false)
		conn := <-network.servers
		for i := range 100 {
			m, err := peerRead(conn, width4096)
			require.NoError(t, err)
			assert.Equal(t, fmt.Sprint(i), string(m))
		}
		<-written
		assert.NoError(t, w.Close())
	})
}

func TestTheHandlerCanFailOverWithinTheSameManager(t *testing.T) {
	noLeaks(t)
	got := make(chan string, 100)
	backup := startListener(t, ListenerConfig{Callback: collect(got)})
	server, log := newPeerServer(t, "127.0.0.1:0"), newPlainLog()
	m, err := NewManager(ManagerConfig{})
	require.NoError(t, err)
	t.Cleanup(func() { _ = m.Close() })
	require.NoError(t, m.Dial(WriterConfig{Address: backup.Addr().String()}))
	require.NoError(t, m.Dial(WriterConfig{
		Address: server.address(), Retry: &RetryConfig{MaxAttempts: 1}, BufferSize: 50, Logger: log,
		OnFailure: func(f Failure) {
			_, err := m.Write(backup.Addr().String(), f.Payload)
			assert.NoError(t, err)
		},
	}))
	conn := server.accept(t)
	require.NoError(t, server.ln.Close())
	require.NoError(t, conn.Close())
	require.Contains(t, log.next(t, "info").msg, "connection lost")
	sent := make(chan struct{})
	go func() { // ends after its messages
		defer close(sent)
		for i := range 100 {
			_, err := m.Write(server.address(), fmt.Append(nil, i))
			assert.NoError(t, err)
		}
	}()
	for i := range 100 {
		require.Equal(t, fmt.Sprint(i), receive(t, got))
	}
	<-sent
}

func TestAHandlerThatPanicsLosesOnlyItsMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network, log := newPipes(), newPlainLog()
		failures := make(chan string, 10)
		w := dialTest(t, WriterConfig{Address: "peer:1", Dial: network.dial, Logger: log, OnFailure: func(f Failure) {
			if string(f.Payload) == "1" {
				panic("handler")
			}
			failures <- string(f.Payload)
		}})
		losePeer(t, network)
		writeNumbers(t, w, 0, 3)
		assert.Equal(t, "0", <-failures)
		assert.Equal(t, "2", <-failures)
		log.next(t, "error") // giving up
		assert.ErrorContains(t, log.next(t, "error").err, "handler")
		assert.NoError(t, w.Close())
	})
}

func TestCloseHandsOverWhatItCouldNotSend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newPipes()
		var got []string
		w := dialTest(t, WriterConfig{
			Address: "peer:1", Dial: network.dial, CloseTimeout: time.Second,
			Retry:     &RetryConfig{MaxAttempts: RetryForever},
			OnFailure: func(f Failure) { got = append(got, string(f.Payload)) },
		})
		losePeer(t, network)
		writeNumbers(t, w, 0, 3)
		start := time.Now()
		err := w.Close()
		assert.Equal(t, time.Second, time.Since(start))
		var failed *FailedError
		require.ErrorAs(t, err, &failed)
		assert.Equal(t, 3, failed.Count)
		assert.ErrorIs(t, err, ErrClosed)
		assert.ErrorIs(t, err, errNetworkDown)
		assert.Equal(t, []string{"0", "1", "2"}, got)
		assert.Equal(t, err, w.Close())
	})
}

func TestCloseDoesNotWaitForeverForTheHandler(t *testing.T) {
	for _, through := range []string{"OnFailure", "Failures"} {
		t.Run(through, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network := newPipes()
				hang := make(chan struct{})
				cfg := WriterConfig{
					Address: "peer:1", Dial: network.dial, CloseTimeout: time.Second,
					Retry: &RetryConfig{MaxAttempts: RetryForever},
				}
				if through == "OnFailure" {
					cfg.OnFailure = func(Failure) { <-hang }
				} else {
					cfg.Failures = make(chan Failure)
				}
				w := dialTest(t, cfg)
				losePeer(t, network)
				writeNumbers(t, w, 0, 3)
				start := time.Now()
				err := w.Close()
				assert.ErrorIs(t, err, ErrCloseTimeout)
				assert.ErrorContains(t, err, "3 failed messages")
				assert.Equal(t, 2*time.Second, time.Since(start))
				close(hang)
			})
		})
	}
}

func TestAPeerThatNeverTakesAnythingUsesUpTheAttempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newPipes()
		failures := make(chan Failure, 1)
		w := dialTest(t, WriterConfig{Address: "peer:1", Dial: network.dial, Failures: failures})
		writeNumbers(t, w, 0, 1)
		f := <-failures
		assert.ErrorContains(t, f.Err, "write to")
		assert.Equal(t, 1+5, network.dialed())
		assert.NoError(t, w.Close())
	})
}

func TestAPeerThatHangsUpAtOnceIsNotDialledInATightLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newPipes()
		w := dialTest(t, WriterConfig{Address: "peer:1", Dial: network.dial})
		start := time.Now()
		for i := range 100 {
			writeNumbers(t, w, i, i+1)
			conn := <-network.servers
			m, err := peerRead(conn, width4096)
			require.NoError(t, err)
			assert.Equal(t, fmt.Sprint(i), string(m))
			require.NoError(t, conn.Close())
			synctest.Wait()
		}
		assert.Greater(t, time.Since(start), time.Second, "each connection was short, so a wait precedes the next")
		assert.NoError(t, w.Close())
	})
}

func TestProgressGivesAllAttemptsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newPipes()
		failures := make(chan Failure, 1)
		w := dialTest(t, WriterConfig{
			Address: "peer:1", Dial: network.dial, Failures: failures,
			Retry: &RetryConfig{BackOff: func() backoff.BackOff { return backoff.NewConstantBackOff(time.Minute) }},
		})
		time.Sleep(time.Second)
		for range 3 { // outages of four attempts each
			losePeer(t, network)
			writeNumbers(t, w, 0, 1)
			time.Sleep(3*time.Minute + time.Second)
			network.setDown(false)
			time.Sleep(time.Minute)
			conn := <-network.servers
			_, err := peerRead(conn, width4096)
			require.NoError(t, err)
			synctest.Wait()
			network.servers <- conn // for losePeer
		}
		assert.Empty(t, failures)
		assert.NoError(t, w.Close())
	})
}

func TestAFailedReopenTriesOnceAndUsesUpNoAttempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newPipes()
		failures := make(chan Failure, 1)
		w := dialTest(t, WriterConfig{Address: "peer:1", Dial: network.dial, Failures: failures})
		losePeer(t, network)
		for i := range 10 {
			require.ErrorIs(t, w.Reopen(), errNetworkDown)
			time.Sleep(time.Hour)
			require.Equal(t, 1+i+1, network.dialed())
		}
		writeNumbers(t, w, 0, 1)
		<-failures
		assert.Equal(t, 1+10+5, network.dialed())
		assert.NoError(t, w.Close())
	})
}

func TestACustomBackOffIsAskedForEachAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newPipes()
		failures := make(chan Failure, 1)
		w := dialTest(t, WriterConfig{
			Address: "peer:1", Dial: network.dial, Failures: failures,
			Retry: &RetryConfig{MaxAttempts: 3, BackOff: func() backoff.BackOff { return backoff.NewConstantBackOff(time.Minute) }},
		})
		time.Sleep(time.Second) // a connection that was not of the shortest kind
		losePeer(t, network)
		start := time.Now()
		writeNumbers(t, w, 0, 1)
		<-failures
		assert.Equal(t, 2*time.Minute, time.Since(start), "two waits between three attempts")
		assert.NoError(t, w.Close())
	})
}

func TestABackOffThatStopsEndsTheAttempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newPipes()
		failures := make(chan Failure, 1)
		w := dialTest(t, WriterConfig{
			Address: "peer:1", Dial: network.dial, Failures: failures,
			Retry: &RetryConfig{MaxAttempts: RetryForever, BackOff: func() backoff.BackOff { return &backoff.StopBackOff{} }},
		})
		time.Sleep(time.Second)
		losePeer(t, network)
		writeNumbers(t, w, 0, 1)
		assert.ErrorIs(t, (<-failures).Err, errNetworkDown)
		assert.Equal(t, 1+1, network.dialed())
		assert.NoError(t, w.Close())
	})
}
