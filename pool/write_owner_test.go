//go:build unix

package pool

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/framing"
	"github.com/buffstreams/watermill-buffstreams/internal/netio"
	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
)

// dialSmall dials sockets that hold little, so that they are full now and then.
func dialSmall(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return conn, conn.(*net.TCPConn).SetWriteBuffer(128 << 10)
}

// afterChunk puts a Writer that has nothing to send in the state that it is in after a Write has sent a chunk, but that
// sendLoop does not look at the clock.
func afterChunk(t *testing.T, w *Writer) {
	t.Helper()
	require.Eventually(t, func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.owner != ownerNone {
			return false
		}
		w.owner, w.streaming = ownerFiller, true
		return true
	}, 30*time.Second, time.Millisecond)
}

// closeAndWait ends goroutines that may wait for a peer that is not read any more.
func closeAndWait(w *Writer, wg *sync.WaitGroup) {
	_ = w.Close() // a test that got all it wanted does not depend on it
	wg.Wait()
}

// numbered is message n of a goroutine.
func numbered(goroutine, n, size int) []byte {
	m := make([]byte, size)
	binary.BigEndian.PutUint32(m, uint32(goroutine))
	binary.BigEndian.PutUint32(m[4:], uint32(n))
	m[size-1] = byte(n)
	return m
}

func parseNumbered(t *testing.T, m []byte, size int) (goroutine, n int) {
	t.Helper()
	if len(m) == size {
		goroutine, n = int(binary.BigEndian.Uint32(m)), int(binary.BigEndian.Uint32(m[4:]))
	}
	if len(m) != size || m[size-1] != byte(n) {
		require.FailNow(t, "a damaged message", "%d bytes", len(m))
	}
	return goroutine, n
}

func TestWriter_WritesThatSendKeepOrderAndLeaveNothing(t *testing.T) {
	codec, err := framing.NewVarint(1 << 20)
	require.NoError(t, err)
	for name, c := range map[string]struct{ goroutines, messages, size, buffer int }{
		"one goroutine":            {1, 200_000, 110, 0},
		"many":                     {8, 30_000, 110, 0},
		"a small buffer":           {4, 5_000, 3_000, 8 << 10},
		"messages like chunks":     {4, 500, filledChunk, 0},
		"messages over the buffer": {4, 300, 100_000, 64 << 10},
	} {
		t.Run(name, func(t *testing.T) {
			testkit.CheckLeaks(t)
			server := testkit.NewPeerServer(t, "127.0.0.1:0")
			w := dialTest(t, WriterConfig{
				Address: server.Address(), MaxMessageSize: codec.MaxLength(), BufferSize: c.buffer, Dial: dialSmall, Codec: codec,
			})
			conn := server.Accept(t)
			var wg sync.WaitGroup
			defer closeAndWait(w, &wg)
			var done atomic.Int32 // goroutines
			for g := range c.goroutines {
				wg.Go(func() { // ends when all is written
					defer done.Add(1)
					for n := range c.messages {
						if _, err := w.Write(numbered(g, n, c.size)); !assert.NoError(t, err) {
							return
						}
					}
				})
			}
			stuck := func() bool { // socket and buffer are full, or there is nothing to fill them
				w.mu.Lock()
				defer w.mu.Unlock()
				return w.waiters > 0 || int(done.Load()) == c.goroutines
			}
			in, next := framing.NewReader(conn, codec), make([]int, c.goroutines)
			for i := range c.goroutines * c.messages { // neither Flush nor Close hurries the last ones
				if i%20_000 == 0 {
					require.Eventually(t, stuck, 30*time.Second, time.Millisecond)
				}
				m, err := in.Next()
				if err != nil {
					require.NoError(t, err)
				}
				g, n := parseNumbered(t, m, c.size)
				if next[g] != n {
					require.Equal(t, next[g], n)
				}
				next[g]++
			}
		})
	}
}

// A peer that hangs up in the middle loses what the kernel had. All else arrives, whole and in order.
func TestWriter_WritesThatSendBeginEachConnectionWithAFrame(t *testing.T) {
	testkit.CheckLeaks(t)
	const size, messages = 110, 400_000
	server := testkit.NewPeerServer(t, "127.0.0.1:0")
	w := dialTest(t, WriterConfig{Address: server.Address(), Dial: dialSmall, Retry: &RetryConfig{InitialInterval: time.Millisecond}})
	var wg sync.WaitGroup
	defer closeAndWait(w, &wg)
	wg.Go(func() { // ends when all is written
		for n := range messages {
			if _, err := w.Write(numbered(0, n, size)); !assert.NoError(t, err) {
				return
			}
		}
	})
	next, conns := 0, 0
	for ; next < messages; conns++ {
		conn := server.Accept(t)
		in := io.Reader(conn)
		if conns < 20 {
			in = io.LimitReader(conn, int64(1_000_003*(conns%3)+300_007))
		}
		r := bufio.NewReader(in)
		for first := true; next < messages; first = false {
			m, err := peerRead(r, width4096)
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				break
			}
			require.NoError(t, err)
			_, n := parseNumbered(t, m, size)
			require.True(t, n == next || first && n > next, "%d came where %d was due", n, next)
			next = n + 1
		}
		require.NoError(t, conn.Close())
	}
	assert.Greater(t, conns, 10)
}

func TestWriter_WriteThatFillsAChunkSendsIt(t *testing.T) {
	server := testkit.NewPeerServer(t, "127.0.0.1:0")
	w := dialTest(t, WriterConfig{Address: server.Address()})
	in := bufio.NewReader(server.Accept(t))
	afterChunk(t, w)
	const size = 1000
	for n := range filledChunk/size + 1 {
		_, err := w.Write(numbered(0, n, size))
		require.NoError(t, err)
	}
	w.mu.Lock()
	assert.Empty(t, w.pending)
	assert.Equal(t, w.queued, w.settled)
	assert.Equal(t, ownerFiller, w.owner)
	w.mu.Unlock()
	for n := range filledChunk/size + 1 {
		m, err := peerRead(in, width4096)
		require.NoError(t, err)
		require.Equal(t, numbered(0, n, size), m)
	}
}

func TestWriter_RestOfAChunkFollows(t *testing.T) {
	server := testkit.NewPeerServer(t, "127.0.0.1:0")
	w := dialTest(t, WriterConfig{Address: server.Address(), Dial: dialSmall})
	conn := server.Accept(t)
	afterChunk(t, w)
	const size = 1000
	n := 0
	for full := false; !full; n++ { // the peer does not read
		_, err := w.Write(numbered(0, n, size))
		require.NoError(t, err)
		w.mu.Lock()
		full = w.settled+uint64(len(w.pending)) < w.queued // something is left of a chunk
		w.mu.Unlock()
	}
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(10*time.Second)))
	in := bufio.NewReader(conn)
	for i := range n {
		m, err := peerRead(in, width4096)
		require.NoError(t, err)
		require.Equal(t, numbered(0, i, size), m)
	}
}

func TestWriter_FlushDoesNotWaitForAChunk(t *testing.T) {
	server := testkit.NewPeerServer(t, "127.0.0.1:0")
	w := dialTest(t, WriterConfig{Address: server.Address()})
	conn := server.Accept(t)
	go func() { _, _ = io.Copy(io.Discard, conn) }() // ends with conn
	afterChunk(t, w)
	_, err := w.Write([]byte("little"))
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	require.NoError(t, w.Flush(ctx))
}

// wrapped has a Write of its own, which nothing may go past.
type wrapped struct{ *net.TCPConn }

func TestWriter_WritesSendToABareSocketOnly(t *testing.T) {
	server := testkit.NewPeerServer(t, "127.0.0.1:0")
	conn, err := net.Dial("tcp", server.Address())
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	assert.NotNil(t, netio.NewTryWriter(conn))
	assert.Nil(t, netio.NewTryWriter(wrapped{conn.(*net.TCPConn)}))
}
