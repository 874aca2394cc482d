package pool

import (
	"context"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
)

// A Flush that is not waited for any more leaves nothing behind, though the peer takes nothing for long.
func TestWriter_AFlushThatIsGivenUpIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := testkit.NewNetwork()
		w := dialTest(t, WriterConfig{Address: "peer:1", Dial: network.Dial, CloseTimeout: time.Millisecond})
		conn := <-network.Servers
		_, err := w.Write([]byte("waits"))
		require.NoError(t, err)
		for range 3 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
			require.ErrorIs(t, w.Flush(ctx), context.DeadlineExceeded)
			cancel()
		}
		w.mu.Lock()
		left := len(w.flushes)
		w.mu.Unlock()
		require.Zero(t, left)
		_, err = peerRead(conn, width4096)
		require.NoError(t, err)
		require.NoError(t, w.Flush(t.Context()))
		require.NoError(t, w.Close())
	})
}

// After Close nothing is sent on Failures: what hands them over has ended.
func TestWriter_CloseEndsWhatHandsFailuresOver(t *testing.T) {
	for range 20 {
		synctest.Test(t, func(t *testing.T) {
			network, failures := testkit.NewNetwork(), make(chan Failure)
			w := dialTest(t, WriterConfig{
				Address: "peer:1", Dial: network.Dial, Failures: failures, CloseTimeout: time.Second,
				Retry: &RetryConfig{MaxAttempts: 1, InitialInterval: time.Nanosecond},
			})
			for range 3 {
				_, err := w.Write(make([]byte, 1000))
				require.NoError(t, err)
			}
			require.ErrorIs(t, w.Close(), ErrCloseTimeout)
			select {
			case <-failures:
				require.Fail(t, "a failure after Close")
			default:
			}
			require.Nil(t, w.failures.goroutine())
		})
	}
}

// However connections end, a Listener counts none of them afterwards.
func TestListener_CountsNothingWhenConnectionsAreGone(t *testing.T) {
	got := make(chan string, 10)
	l := startListener(t, ListenerConfig{Callback: collect(got), MaxConnections: 2})
	count := func() (conns, hosts int) {
		l.mu.Lock()
		defer l.mu.Unlock()
		return len(l.conns), len(l.perHost)
	}
	has := func(n int) {
		t.Helper()
		require.Eventually(t, func() bool { conns, _ := count(); return conns == n }, 30*time.Second, time.Millisecond)
	}
	for _, sent := range [][]byte{nil, {0xff}, {2}, peerFrame(width4096, []byte("whole"))} {
		first, second := newPeerClient(t, l), newPeerClient(t, l)
		has(2)
		newPeerClient(t, l).ended() // one too many
		first.sendRaw(sent)
		require.NoError(t, first.conn.Close())
		require.NoError(t, second.conn.Close())
		has(0)
		_, hosts := count()
		require.Zero(t, hosts)
	}
	require.Equal(t, "whole", testkit.Receive(t, got))
	newPeerClient(t, l)
	has(1)
	require.NoError(t, l.Close())
	conns, hosts := count()
	require.Zero(t, conns+hosts)
}

// The socket was closed by its owner: Close has nothing more to close, and nothing to complain of.
func TestListener_CloseOfASocketThatIsClosed(t *testing.T) {
	var socket net.Listener
	listen := func(network, address string) (ln net.Listener, err error) {
		socket, err = net.Listen(network, address)
		return socket, err
	}
	l, err := ListenTCP(ListenerConfig{Address: "127.0.0.1:0", Callback: ignore, Listen: listen})
	require.NoError(t, err)
	require.NoError(t, socket.Close())
	require.NoError(t, l.Close())
}
