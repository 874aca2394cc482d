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

	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
)

// losePeer ends the connection and keeps new ones from being made.
func losePeer(t *testing.T, network *testkit.Network) {
	t.Helper()
	network.SetDown(true)
	require.NoError(t, (<-network.Servers).Close())
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

func TestFailure_OnFailureGetsMessagesInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := testkit.NewNetwork()
		failures := make(chan Failure, 10)
		w := dialTest(t, WriterConfig{Address: "peer:1", Dial: network.Dial, OnFailure: func(f Failure) { failures <- f }})
		losePeer(t, network)
		writeNumbers(t, w, 0, 3)
		for i := range 3 {
			f := <-failures
			assert.Equal(t, "peer:1", f.Address)
			assert.Equal(t, fmt.Sprint(i), string(f.Payload))
			assert.ErrorIs(t, f.Err, testkit.ErrNetworkDown)
		}
		assert.Equal(t, 1+5, network.Dialed(), "the first one, and five attempts")

		// The Writer lives on: the next message begins anew.
		network.SetDown(false)
		writeNumbers(t, w, 3, 4)
		m, err := peerRead(<-network.Servers, width4096)
		require.NoError(t, err)
		assert.Equal(t, "3", string(m))
		assert.NoError(t, w.Close(), "what the handler has got is not reported again")
	})
}

func TestFailure_ChannelGetsMessagesInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := testkit.NewNetwork()
		failures := make(chan Failure) // full at once
		w := dialTest(t, WriterConfig{Address: "peer:1", Dial: network.Dial, Failures: failures})
		losePeer(t, network)
		writeNumbers(t, w, 0, 3)
		time.Sleep(time.Minute) // of the bubble's clock: all attempts are over
		writeNumbers(t, w, 3, 6)
		time.Sleep(time.Hour)
		assert.Greater(t, network.Dialed(), 20, "it goes on trying while there is no room for failures")
		for i := range 6 {
			assert.Equal(t, fmt.Sprint(i), string((<-failures).Payload))
		}
		assert.NoError(t, w.Close())
	})
}

func TestFailure_WithoutHandlerTheNextCallReportsOnce(t *testing.T) {
	calls := map[string]func(*Writer) error{
		"Write": func(w *Writer) error { n, err := w.Write([]byte("not taken")); _ = n; return err },
		"Flush": func(w *Writer) error { return w.Flush(context.Background()) },
		"Close": (*Writer).Close,
	}
	for name, call := range calls {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network := testkit.NewNetwork()
				w := dialTest(t, WriterConfig{Address: "peer:1", Dial: network.Dial})
				losePeer(t, network)
				writeNumbers(t, w, 0, 3)
				time.Sleep(time.Minute)
				var failed *FailedError
				require.ErrorAs(t, call(w), &failed)
				assert.Equal(t, 3, failed.Count)
				assert.ErrorIs(t, failed, testkit.ErrNetworkDown)
				if name != "Close" {
					assert.NoError(t, w.Flush(context.Background()), "it is reported once")
					assert.NoError(t, w.Close())
				}
			})
		})
	}
}

func TestFailure_FlushReportsWhatFailedWhileItWaited(t *testing.T) {
	for _, handler := range []func(Failure){nil, func(Failure) {}} {
		synctest.Test(t, func(t *testing.T) {
			network := testkit.NewNetwork()
			w := dialTest(t, WriterConfig{Address: "peer:1", Dial: network.Dial, OnFailure: handler})
			losePeer(t, network)
			writeNumbers(t, w, 0, 4)
			var failed *FailedError
			require.ErrorAs(t, w.Flush(context.Background()), &failed)
			assert.Equal(t, 4, failed.Count)
			assert.NoError(t, w.Close())
		})
	}
}

func TestRetry_FullBufferWaitsForTheEndOfAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := testkit.NewNetwork()
		w := dialTest(t, WriterConfig{
			Address: "peer:1", Dial: network.Dial, BufferSize: 20,
			Retry: &RetryConfig{MaxAttempts: RetryForever},
		})
		losePeer(t, network)
		written := make(chan struct{})
		go func() { // ends after the outage
			defer close(written)
			for i := range 100 {
				_, err := w.Write(fmt.Append(nil, i))
				assert.NoError(t, err)
			}
		}()
		time.Sleep(24 * time.Hour)
		select {
		case <-written:
			t.Fatal("the buffer took more than its size")
		default:
		}
		network.SetDown(false)
		conn := <-network.Servers
		for i := range 100 {
			m, err := peerRead(conn, width4096)
			require.NoError(t, err)
			assert.Equal(t, fmt.Sprint(i), string(m))
		}
		<-written
		assert.NoError(t, w.Close())
	})
}

func TestFailure_OnFailureCanWriteToTheSameManager(t *testing.T) {
	testkit.CheckLeaks(t)
	got := make(chan string, 100)
	backup := startListener(t, ListenerConfig{Callback: collect(got)})
	server, log := testkit.NewPeerServer(t, "127.0.0.1:0"), testkit.NewLog()
	m, err := NewManager(ManagerConfig{})
	require.NoError(t, err)
	t.Cleanup(func() { _ = m.Close() })
	require.NoError(t, m.Dial(WriterConfig{Address: backup.Addr().String()}))
	require.NoError(t, m.Dial(WriterConfig{
		Address: server.Address(), Retry: &RetryConfig{MaxAttempts: 1}, BufferSize: 50, Logger: log,
		OnFailure: func(f Failure) {
			_, err := m.Write(backup.Addr().String(), f.Payload)
			assert.NoError(t, err)
		},
	}))
	conn := server.Accept(t)
	require.NoError(t, server.Listener.Close())
	require.NoError(t, conn.Close())
	require.Contains(t, log.Next(t, "info").Msg, "Connection lost")
	sent := make(chan struct{})
	go func() { // ends after its messages
		defer close(sent)
		for i := range 100 {
			_, err := m.Write(server.Address(), fmt.Append(nil, i))
			assert.NoError(t, err)
		}
	}()
	for i := range 100 {
		require.Equal(t, fmt.Sprint(i), testkit.Receive(t, got))
	}
	<-sent
}

func TestFailure_OnFailureThatPanicsLosesOnlyItsMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network, log := testkit.NewNetwork(), testkit.NewLog()
		failures := make(chan string, 10)
		w := dialTest(t, WriterConfig{Address: "peer:1", Dial: network.Dial, Logger: log, OnFailure: func(f Failure) {
			if string(f.Payload) == "1" {
				panic("handler")
			}
			failures <- string(f.Payload)
		}})
		losePeer(t, network)
		writeNumbers(t, w, 0, 3)
		assert.Equal(t, "0", <-failures)
		assert.Equal(t, "2", <-failures)
		log.Next(t, "error") // giving up
		assert.ErrorContains(t, log.Next(t, "error").Err, "handler")
		assert.NoError(t, w.Close())
	})
}

func TestFailure_CloseHandsOverWhatItCouldNotSend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := testkit.NewNetwork()
		var got []string
		w := dialTest(t, WriterConfig{
			Address: "peer:1", Dial: network.Dial, CloseTimeout: time.Second,
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
		assert.ErrorIs(t, err, testkit.ErrNetworkDown)
		assert.Equal(t, []string{"0", "1", "2"}, got)
		assert.Equal(t, err, w.Close())
	})
}

func TestFailure_CloseDoesNotWaitForeverForTheReceiver(t *testing.T) {
	for _, through := range []string{"OnFailure", "Failures"} {
		t.Run(through, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network := testkit.NewNetwork()
				hang, calls := make(chan struct{}), 0
				cfg := WriterConfig{
					Address: "peer:1", Dial: network.Dial, CloseTimeout: time.Second,
					Retry: &RetryConfig{MaxAttempts: RetryForever},
				}
				if through == "OnFailure" {
					cfg.OnFailure = func(Failure) { calls++; <-hang }
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
				synctest.Wait()
				assert.LessOrEqual(t, calls, 1, "nothing is handed over after Close")
			})
		})
	}
}

func TestRetry_PeerThatNeverTakesAnythingUsesUpTheAttempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := testkit.NewNetwork()
		failures := make(chan Failure, 1)
		w := dialTest(t, WriterConfig{Address: "peer:1", Dial: network.Dial, Failures: failures})
		writeNumbers(t, w, 0, 1)
		f := <-failures
		assert.ErrorContains(t, f.Err, "write to")
		assert.Equal(t, 1+5, network.Dialed())
		assert.NoError(t, w.Close())
	})
}

func TestRetry_PeerThatHangsUpAtOnceIsNotDialedInATightLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := testkit.NewNetwork()
		w := dialTest(t, WriterConfig{Address: "peer:1", Dial: network.Dial})
		start := time.Now()
		for i := range 100 {
			writeNumbers(t, w, i, i+1)
			conn := <-network.Servers
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

func TestRetry_ProgressGivesAllAttemptsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := testkit.NewNetwork()
		failures := make(chan Failure, 1)
		w := dialTest(t, WriterConfig{
			Address: "peer:1", Dial: network.Dial, Failures: failures,
			Retry: &RetryConfig{BackOff: func() backoff.BackOff { return backoff.NewConstantBackOff(time.Minute) }},
		})
		time.Sleep(time.Second)
		for range 3 { // outages of four attempts each
			losePeer(t, network)
			writeNumbers(t, w, 0, 1)
			time.Sleep(3*time.Minute + time.Second)
			network.SetDown(false)
			time.Sleep(time.Minute)
			conn := <-network.Servers
			_, err := peerRead(conn, width4096)
			require.NoError(t, err)
			synctest.Wait()
			network.Servers <- conn // for losePeer
		}
		assert.Empty(t, failures)
		assert.NoError(t, w.Close())
	})
}

func TestRetry_ProgressResetsTheBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := testkit.NewNetwork()
		w := dialTest(t, WriterConfig{
			Address: "peer:1", Dial: network.Dial,
			Retry: &RetryConfig{BackOff: func() backoff.BackOff {
				return &backoff.ExponentialBackOff{InitialInterval: time.Minute, Multiplier: 2, MaxInterval: time.Hour}
			}},
		})
		time.Sleep(time.Second)
		for range 3 { // outages whose second wait is needed
			losePeer(t, network)
			start := time.Now()
			writeNumbers(t, w, 0, 1)
			time.Sleep(2 * time.Minute)
			network.SetDown(false)
			conn := <-network.Servers
			_, err := peerRead(conn, width4096)
			require.NoError(t, err)
			require.Equal(t, 3*time.Minute, time.Since(start), "1 min, then 2 min")
			time.Sleep(time.Second)
			network.Servers <- conn // for losePeer
		}
		assert.NoError(t, w.Close())
	})
}

func TestRetry_FailedReopenTriesOnceAndUsesUpNoAttempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := testkit.NewNetwork()
		failures := make(chan Failure, 1)
		w := dialTest(t, WriterConfig{Address: "peer:1", Dial: network.Dial, Failures: failures})
		losePeer(t, network)
		for i := range 10 {
			require.ErrorIs(t, w.Reopen(), testkit.ErrNetworkDown)
			time.Sleep(time.Hour)
			require.Equal(t, 1+i+1, network.Dialed())
		}
		writeNumbers(t, w, 0, 1)
		<-failures
		assert.Equal(t, 1+10+5, network.Dialed())
		assert.NoError(t, w.Close())
	})
}

func TestRetry_ReopenEndsThePause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := testkit.NewNetwork()
		w := dialTest(t, WriterConfig{
			Address: "peer:1", Dial: network.Dial,
			Retry: &RetryConfig{BackOff: func() backoff.BackOff { return backoff.NewConstantBackOff(time.Hour) }},
		})
		time.Sleep(time.Second)
		losePeer(t, network)
		writeNumbers(t, w, 0, 1)
		synctest.Wait()
		start := time.Now()
		require.ErrorIs(t, w.Reopen(), testkit.ErrNetworkDown)
		network.SetDown(false)
		require.NoError(t, w.Reopen())
		assert.Zero(t, time.Since(start))
		m, err := peerRead(<-network.Servers, width4096)
		require.NoError(t, err)
		assert.Equal(t, "0", string(m))
		assert.NoError(t, w.Close())
	})
}

func TestRetry_BackOffIsAskedForEachAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := testkit.NewNetwork()
		failures := make(chan Failure, 1)
		w := dialTest(t, WriterConfig{
			Address: "peer:1", Dial: network.Dial, Failures: failures,
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

func TestRetry_BackOffThatStopsEndsTheAttempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := testkit.NewNetwork()
		failures := make(chan Failure, 1)
		w := dialTest(t, WriterConfig{
			Address: "peer:1", Dial: network.Dial, Failures: failures,
			Retry: &RetryConfig{MaxAttempts: RetryForever, BackOff: func() backoff.BackOff { return &backoff.StopBackOff{} }},
		})
		time.Sleep(time.Second)
		losePeer(t, network)
		writeNumbers(t, w, 0, 1)
		assert.ErrorIs(t, (<-failures).Err, testkit.ErrNetworkDown)
		assert.Equal(t, 1+1, network.Dialed())
		assert.NoError(t, w.Close())
	})
}
