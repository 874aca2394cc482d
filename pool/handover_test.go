//go:build unix

package pool

import (
	"bufio"
	"bytes"
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
)

// soon is a context for what does not wait for a clock.
func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// A Write fills a chunk, and the connection is lost: it wakes sendLoop, which opens another.
func TestWriter_WriteThatFillsAChunkOfALostConnectionWakesSendLoop(t *testing.T) {
	server := testkit.NewPeerServer(t, "127.0.0.1:0")
	w := dialTest(t, WriterConfig{Address: server.Address(), Retry: &RetryConfig{InitialInterval: time.Nanosecond}})
	first := server.Accept(t)
	afterChunk(t, w)
	old := w.detach()
	require.NoError(t, first.Close())
	_ = old.conn.Close() // its watcher does, too
	const size = 1000
	for n := range filledChunk/size + 1 {
		_, err := w.WriteContext(soon(t), numbered(0, n, size))
		require.NoError(t, err)
	}
	in := bufio.NewReader(server.Accept(t))
	for n := range filledChunk/size + 1 {
		m, err := peerRead(in, width4096)
		require.NoError(t, err)
		require.Equal(t, numbered(0, n, size), m)
	}
}

// A message does not fit behind one that waits for a chunk to be filled: no chunk will be, so sendLoop sends.
func TestWriter_WriteThatFindsNoRoomWaitsForNoChunk(t *testing.T) {
	server := testkit.NewPeerServer(t, "127.0.0.1:0")
	w := dialTest(t, WriterConfig{Address: server.Address(), BufferSize: 1500})
	in := bufio.NewReader(server.Accept(t))
	afterChunk(t, w)
	for n := range 2 {
		_, err := w.WriteContext(soon(t), numbered(0, n, 1000))
		require.NoError(t, err)
	}
	for n := range 2 {
		m, err := peerRead(in, width4096)
		require.NoError(t, err)
		require.Equal(t, numbered(0, n, 1000), m)
	}
}

// claim makes the caller the write owner, with a batch of n messages, as a Write is that has filled a chunk.
func claim(t *testing.T, w *Writer, n int) *outbound {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	require.Equal(t, ownerFiller, w.owner)
	w.pending = append(w.pending, bytes.Repeat(peerFrame(width4096, make([]byte, 1000)), n)...)
	w.queued += uint64(len(w.pending))
	conn := w.claimChunkLocked()
	require.NotNil(t, conn)
	return conn
}

// While a Write sends, others may fill a chunk and no more. When it is done, they may fill the buffer, also where the
// socket has taken only a part, and takes nothing for long.
func TestWriter_WriteThatHasSentLetsTheOthersIn(t *testing.T) {
	for name, messages := range map[string]int{"a part was taken": 60_000, "all was taken": 1} {
		t.Run(name, func(t *testing.T) {
			server := testkit.NewPeerServer(t, "127.0.0.1:0")
			w := dialTest(t, WriterConfig{Address: server.Address(), Dial: dialSmall, WriteTimeout: time.Hour, CloseTimeout: time.Millisecond})
			_ = server.Accept(t) // and does not read
			afterChunk(t, w)
			conn := claim(t, w, messages)
			const size = 1000
			for range filledChunk/(size+width4096) - 1 {
				_, err := w.WriteContext(soon(t), make([]byte, size))
				require.NoError(t, err)
			}
			last := make(chan error, 1)
			go func() { // ends when it has room
				for range 2 {
					if _, err := w.Write(make([]byte, size)); err != nil {
						last <- err
						return
					}
				}
				last <- nil
			}()
			require.Eventually(t, func() bool { w.mu.Lock(); defer w.mu.Unlock(); return w.waiters == 1 }, 30*time.Second, time.Millisecond)
			require.Empty(t, last)
			w.sendChunk(conn)
			require.Eventually(t, func() bool { return len(last) == 1 }, 20*time.Second, time.Millisecond)
			require.NoError(t, <-last)
		})
	}
}

// The deadline of the last write of sendLoop has passed when a Write sends: it says nothing of that.
func TestWriter_WriteThatSendsHasADeadlineOfItsOwn(t *testing.T) {
	server := testkit.NewPeerServer(t, "127.0.0.1:0")
	w := dialTest(t, WriterConfig{Address: server.Address()})
	in := bufio.NewReader(server.Accept(t))
	afterChunk(t, w)
	conn := claim(t, w, 1)
	require.NoError(t, conn.conn.SetWriteDeadline(time.Unix(1, 0)))
	w.sendChunk(conn)
	require.Same(t, conn, w.current(), "the connection goes on")
	m, err := peerRead(in, width4096)
	require.NoError(t, err)
	require.Len(t, m, 1000)
}
