package pool

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
)

// A connection whose TLS does not begin, or does not succeed, is closed.
func TestWriter_ClosesAConnectionWithoutItsTLS(t *testing.T) {
	for name, c := range map[string]struct{ address, says string }{
		"no name for the certificate": {"/run/peer.sock", "set ServerName"},
		"the peer speaks no TLS":      {"peer:1", "tls"},
	} {
		t.Run(name, func(t *testing.T) {
			network := testkit.NewNetwork()
			failed, ended := make(chan error, 1), make(chan struct{})
			go func() { // ends with the handshake
				_, err := DialTCP(WriterConfig{
					Address: c.address, Network: "unix", Dial: network.Dial, TLSConfig: &tls.Config{MinVersion: tls.VersionTLS13},
				})
				failed <- err
			}()
			peer := testkit.Receive(t, network.Servers)
			go func() { _, _ = peer.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n")) }() // ends with the connection
			go func() {                                                                   // ends with the connection
				_, _ = io.Copy(io.Discard, peer)
				close(ended)
			}()
			require.ErrorContains(t, testkit.Receive(t, failed), c.says)
			select {
			case <-ended:
			case <-time.After(30 * time.Second):
				_ = peer.Close()
				require.Fail(t, "the connection was not closed")
			}
		})
	}
}

// Under TLS, too, a write goes on while the peer takes something: TLS gives up for good after one that timed out.
func TestWriter_WritesGoOnUnderTLS(t *testing.T) {
	server, client := testkit.SelfSignedTLS(t)
	l := startListener(t, ListenerConfig{Callback: ignore, TLSConfig: server})
	for timeout, patient := range map[time.Duration]bool{0: true, Unlimited: false} {
		w := dialWriterTo(t, l, WriterConfig{TLSConfig: client, WriteTimeout: timeout})
		_, bare := w.current().conn.(*tls.Conn).NetConn().(*net.TCPConn)
		require.Equal(t, patient, !bare, "%v", timeout)
	}
}

// stops is a BackOff that stops at once.
type stops struct{}

func (stops) NextBackOff() time.Duration { return backoff.Stop }
func (stops) Reset()                     {}

// The BackOff has stopped, and an earlier failure waits to be handed over: the Writer goes on with its longest wait,
// and not as fast as it can.
func TestWriter_AStoppedBackOffIsNoTightLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := testkit.NewNetwork()
		var dials atomic.Int64
		dial := func(ctx context.Context, a, b string) (net.Conn, error) {
			if dials.Add(1) == 1 {
				return network.Dial(ctx, a, b)
			}
			time.Sleep(time.Millisecond)
			return nil, net.ErrClosed
		}
		failures := make(chan Failure)
		w := dialTest(t, WriterConfig{
			Address: "peer:1", Dial: dial, Failures: failures, CloseTimeout: time.Second,
			Retry: &RetryConfig{
				InitialInterval: time.Millisecond, MaxInterval: time.Second, MaxAttempts: RetryForever,
				BackOff: func() backoff.BackOff { return stops{} },
			},
		})
		time.Sleep(time.Second)
		require.NoError(t, (<-network.Servers).Close())
		synctest.Wait()
		for _, m := range []string{"first", "second"} {
			_, err := w.Write([]byte(m))
			require.NoError(t, err)
			time.Sleep(100 * time.Millisecond)
		}
		synctest.Wait()
		before := dials.Load()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		require.Less(t, dials.Load()-before, int64(15))
		require.Greater(t, dials.Load()-before, int64(5))
		require.Equal(t, "first", string((<-failures).Payload))
		require.Equal(t, "second", string((<-failures).Payload))
		require.NoError(t, w.Close())
	})
}
