package pool

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/framing"
	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
)

func TestWriter_MessageOverTheLimitQueuesNothing(t *testing.T) {
	testkit.CheckLeaks(t)
	server := testkit.NewPeerServer(t, "127.0.0.1:0")
	w := dialTest(t, WriterConfig{Address: server.Address(), MaxMessageSize: 256})
	conn := server.Accept(t)
	n, err := w.Write(make([]byte, 257))
	assert.Zero(t, n)
	var tooLong *framing.LengthError
	require.ErrorAs(t, err, &tooLong)
	assert.Equal(t, &framing.LengthError{Length: 257, Limit: 256}, tooLong)

	n, err = w.Write([]byte("next"))
	require.NoError(t, err)
	assert.Equal(t, 4, n)
	require.NoError(t, w.Close())
	got, err := readAll(conn)
	require.NoError(t, err)
	assert.Equal(t, []string{"next"}, got)
}

func TestWriter_CloseSendsWhatIsQueuedAndIsIdempotent(t *testing.T) {
	testkit.CheckLeaks(t)
	server := testkit.NewPeerServer(t, "127.0.0.1:0")
	w := dialTest(t, WriterConfig{Address: server.Address()})
	conn := server.Accept(t)
	var want []string
	for i := range 1000 {
		want = append(want, fmt.Sprint("message ", i))
		_, err := w.Write([]byte(want[i]))
		require.NoError(t, err)
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() { assert.NoError(t, w.Close()) }) // ends with Close
	}
	got, err := readAll(conn)
	wg.Wait()
	require.NoError(t, err)
	assert.Equal(t, want, got)

	_, err = w.Write([]byte("x"))
	assert.ErrorIs(t, err, ErrClosed)
	assert.ErrorIs(t, w.Reopen(), ErrClosed)
	assert.NoError(t, w.Flush(context.Background()), "all that was accepted was sent")
	assert.NoError(t, w.Close())
}

func TestWriter_DialReturnsWhyItFailed(t *testing.T) {
	server := testkit.NewPeerServer(t, "127.0.0.1:0")
	require.NoError(t, server.Listener.Close())
	_, err := DialTCP(WriterConfig{Address: server.Address()})
	var refused *net.OpError
	require.ErrorAs(t, err, &refused)
	assert.Contains(t, err.Error(), server.Address())
}

func TestWriter_NextWriteReconnectsAfterThePeerRestarted(t *testing.T) {
	testkit.CheckLeaks(t)
	log := testkit.NewLog()
	server := testkit.NewPeerServer(t, testkit.Host()+":0") // its own, which it gets again
	w := dialTest(t, WriterConfig{Address: server.Address(), Logger: log})
	conn := server.Accept(t)
	for round := range 5 {
		_, err := fmt.Fprint(w, "round ", round)
		require.NoError(t, err)
		m, err := peerRead(conn, width4096)
		require.NoError(t, err)
		assert.Equal(t, fmt.Sprint("round ", round), string(m))

		require.NoError(t, conn.Close())
		require.NoError(t, server.Listener.Close())
		assert.Contains(t, log.Next(t, "info").Msg, "Connection lost", "without a Write")
		server = testkit.NewPeerServer(t, server.Address())
		_, err = fmt.Fprint(w, "after ", round)
		require.NoError(t, err)
		conn = server.Accept(t)
		m, err = peerRead(conn, width4096)
		require.NoError(t, err)
		assert.Equal(t, fmt.Sprint("after ", round), string(m), "the first message after the restart")
		assert.Contains(t, log.Next(t, "info").Msg, "Reconnected")
	}
}

func TestWriter_Reopen(t *testing.T) {
	testkit.CheckLeaks(t)
	server := testkit.NewPeerServer(t, testkit.Host()+":0") // its own, which it gets again
	w := dialTest(t, WriterConfig{Address: server.Address()})
	first := server.Accept(t)
	require.NoError(t, w.Reopen())
	got, err := readAll(first)
	require.NoError(t, err)
	assert.Empty(t, got)
	second := server.Accept(t)
	_, err = w.Write([]byte("on the second"))
	require.NoError(t, err)
	m, err := peerRead(second, width4096)
	require.NoError(t, err)
	assert.Equal(t, "on the second", string(m))
	w.mu.Lock()
	waiting := len(w.reopens)
	w.mu.Unlock()
	require.Zero(t, waiting, "each is answered once")

	require.NoError(t, server.Listener.Close())
	var refused *net.OpError
	require.ErrorAs(t, w.Reopen(), &refused, "it tells that it failed, at once")
	server = testkit.NewPeerServer(t, server.Address())
	_, err = w.Write([]byte("on the third"))
	require.NoError(t, err)
	m, err = peerRead(server.Accept(t), width4096)
	require.NoError(t, err)
	assert.Equal(t, "on the third", string(m))
}

func TestWriter_ReopenEndsAWriteThatIsStuckAndLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := testkit.NewNetwork()
		w := dialTest(t, WriterConfig{Address: "peer:1", Dial: network.Dial, WriteTimeout: Unlimited})
		<-network.Servers // takes nothing
		_, err := w.Write([]byte("stuck"))
		require.NoError(t, err)
		synctest.Wait()
		require.NoError(t, w.Reopen())
		m, err := peerRead(<-network.Servers, width4096)
		require.NoError(t, err)
		assert.Equal(t, "stuck", string(m))
		require.NoError(t, w.Close())
	})
}

// brokenConn takes a number of bytes and breaks then.
type brokenConn struct {
	net.Conn
	taken bytes.Buffer
	room  int
}

var errBroken = errors.New("cut")

func (c *brokenConn) Write(p []byte) (int, error) {
	n := min(len(p), c.room)
	c.taken.Write(p[:n])
	if c.room -= n; n < len(p) {
		return n, errBroken
	}
	return n, nil
}

// breakAfter dials connections of which the first ones break after they took rooms[i] bytes.
func breakAfter(network *testkit.Network, broken chan<- *brokenConn, rooms ...int) DialFunc {
	return func(ctx context.Context, n, a string) (net.Conn, error) {
		conn, err := network.Dial(ctx, n, a)
		if err != nil || len(rooms) == 0 {
			return conn, err
		}
		c := &brokenConn{Conn: conn, room: rooms[0]}
		rooms = rooms[1:]
		broken <- c
		return c, nil
	}
}

func TestWriter_InterruptedFrameIsSentAgainFromItsStart(t *testing.T) {
	messages := []string{"one", "", "three three", "4"}
	var stream []byte
	ends := []int{0}
	for _, m := range messages {
		stream = append(stream, peerFrame(width4096, []byte(m))...)
		ends = append(ends, len(stream))
	}
	for room := range stream {
		synctest.Test(t, func(t *testing.T) {
			network, conns := testkit.NewNetwork(), make(chan *brokenConn, 1)
			w := dialTest(t, WriterConfig{Address: "peer:1", Dial: breakAfter(network, conns, room)})
			<-network.Servers
			for _, m := range messages {
				_, err := w.Write([]byte(m))
				require.NoError(t, err)
			}
			second := <-network.Servers
			closed := make(chan error)
			go func() { closed <- w.Close() }() // ends with Close
			got, err := readAll(second)
			require.NoError(t, err)
			require.NoError(t, <-closed)

			whole := 0
			for whole+1 < len(ends) && ends[whole+1] <= room {
				whole++
			}
			assert.Equal(t, messages[whole:], got, "broken after %d bytes", room)
			assert.Equal(t, string(stream[:room]), (<-conns).taken.String())
		})
	}
}

func TestWriter_WriteTimeoutEndsTheConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := testkit.NewNetwork()
		w := dialTest(t, WriterConfig{Address: "peer:1", Dial: network.Dial})
		stuck := <-network.Servers
		start := time.Now()
		_, err := w.Write([]byte("whole"))
		require.NoError(t, err)
		half := make([]byte, 4)
		_, err = stuck.Read(half)
		require.NoError(t, err)

		second := <-network.Servers
		assert.Equal(t, defaultWriteTimeout, time.Since(start), "nothing waits before the first attempt")
		m, err := peerRead(second, width4096)
		require.NoError(t, err)
		assert.Equal(t, "whole", string(m))
		_, err = readAll(stuck)
		assert.NoError(t, err, "the first connection carries nothing behind the half frame")
		require.NoError(t, w.Close())
	})
}

func TestWriter_SlowPeerIsNoWriteTimeoutWhileThereIsProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := testkit.NewNetwork()
		w := dialTest(t, WriterConfig{Address: "peer:1", Dial: network.Dial, MaxMessageSize: 1 << 20, CloseTimeout: time.Hour})
		slow := <-network.Servers
		message := strings.Repeat("x", 1<<20-1)
		_, err := w.Write([]byte(message))
		require.NoError(t, err)
		var got bytes.Buffer
		chunk := make([]byte, writeChunk)
		for got.Len() < len(message)+4 {
			time.Sleep(9 * time.Second) // of the bubble's clock
			n, err := slow.Read(chunk)
			require.NoError(t, err)
			got.Write(chunk[:n])
		}
		m, err := peerRead(&got, 4)
		require.NoError(t, err)
		assert.Equal(t, message, string(m))
		require.NoError(t, w.Close())
		assert.Equal(t, 1, network.Dialed())
	})
}

func TestWriter_FullBufferBlocksAndNeverDrops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := testkit.NewNetwork()
		w := dialTest(t, WriterConfig{Address: "peer:1", Dial: network.Dial, BufferSize: 100})
		conn := <-network.Servers
		var accepted []string
		full := make(chan struct{})
		go func() { // ends after the last message
			defer close(full)
			for i := range 50 {
				m := fmt.Sprintf("%020d", i)
				_, err := w.Write([]byte(m))
				assert.NoError(t, err)
				accepted = append(accepted, m)
			}
		}()
		synctest.Wait()
		// 23 bytes a frame: four wait, and at most as many are on their way.
		assert.GreaterOrEqual(t, len(accepted), 5)
		assert.LessOrEqual(t, len(accepted), 8)
		for i := range 50 {
			m, err := peerRead(conn, width4096)
			require.NoError(t, err)
			assert.Equal(t, fmt.Sprintf("%020d", i), string(m))
		}
		<-full
		require.NoError(t, w.Close())
	})
}

func TestWriter_MessageLargerThanTheBufferIsTakenWhenNothingElseWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := testkit.NewNetwork()
		w := dialTest(t, WriterConfig{Address: "peer:1", Dial: network.Dial, BufferSize: 10})
		conn := <-network.Servers
		go func() { // ends after the last message
			for range 3 {
				_, err := w.Write(make([]byte, 4096))
				assert.NoError(t, err)
			}
		}()
		for range 3 {
			m, err := peerRead(conn, width4096)
			require.NoError(t, err)
			assert.Len(t, m, 4096)
		}
		require.NoError(t, w.Close())
	})
}

func TestWriter_CloseEndsAWriteThatWaitsForRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := testkit.NewNetwork()
		w := dialTest(t, WriterConfig{Address: "peer:1", Dial: network.Dial, BufferSize: 10})
		<-network.Servers // takes nothing
		for range 2 {
			_, err := w.Write(make([]byte, 10))
			require.NoError(t, err)
			synctest.Wait()
		}
		blocked := make(chan error, 3)
		for range 3 {
			go func() { // ends with ErrClosed
				_, err := w.Write([]byte("waits"))
				blocked <- err
			}()
		}
		synctest.Wait()
		assert.Empty(t, blocked)
		start := time.Now()
		closed := make(chan error, 1)
		go func() { closed <- w.Close() }() // ends with Close
		for range 3 {
			assert.ErrorIs(t, <-blocked, ErrClosed)
		}
		assert.Zero(t, time.Since(start))
		var failed *FailedError
		require.ErrorAs(t, <-closed, &failed)
		assert.Equal(t, 2, failed.Count, "what was accepted, and only that")
		assert.ErrorIs(t, failed, ErrClosed)
		assert.Equal(t, defaultCloseTimeout, time.Since(start))
	})
}

func TestWriter_Flush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := testkit.NewNetwork()
		w := dialTest(t, WriterConfig{Address: "peer:1", Dial: network.Dial})
		conn := <-network.Servers
		require.NoError(t, w.Flush(context.Background()))
		_, err := w.Write([]byte("m"))
		require.NoError(t, err)

		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		assert.ErrorIs(t, w.Flush(ctx), context.DeadlineExceeded)
		flushed := make(chan error, 1)
		go func() { flushed <- w.Flush(context.Background()) }() // ends with Flush
		synctest.Wait()
		assert.Empty(t, flushed)
		_, err = peerRead(conn, width4096)
		require.NoError(t, err)
		assert.NoError(t, <-flushed)
		require.NoError(t, w.Close())
	})
}

func TestWriter_FlushWaitsForTheLastByte(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := testkit.NewNetwork()
		const parts = 4 // together they are more than the frame, and none is whole
		w := dialTest(t, WriterConfig{Address: "peer:1", Dial: breakAfter(network, make(chan *brokenConn, parts), 3, 3, 3, 3)})
		_, err := w.Write([]byte("whole"))
		require.NoError(t, err)
		flushed := make(chan error, 1)
		go func() { flushed <- w.Flush(context.Background()) }() // ends with Flush
		for range parts {
			<-network.Servers
		}
		last := <-network.Servers
		_, err = io.ReadFull(last, make([]byte, width4096+4))
		require.NoError(t, err)
		synctest.Wait()
		assert.Empty(t, flushed, "a byte is missing")
		_, err = last.Read(make([]byte, 1))
		require.NoError(t, err)
		assert.NoError(t, <-flushed)
		require.NoError(t, w.Close())
	})
}

func TestWriter_BytesOfThePeerAreDiscarded(t *testing.T) {
	testkit.CheckLeaks(t)
	log := testkit.NewLog()
	server := testkit.NewPeerServer(t, "127.0.0.1:0")
	w := dialTest(t, WriterConfig{Address: server.Address(), Logger: log})
	conn := server.Accept(t)
	_, err := conn.Write(make([]byte, 10000))
	require.NoError(t, err)
	assert.Contains(t, log.Next(t, "info").Msg, "discarding")
	_, err = w.Write([]byte("goes on"))
	require.NoError(t, err)
	m, err := peerRead(conn, width4096)
	require.NoError(t, err)
	assert.Equal(t, "goes on", string(m))
}

func TestWriter_PeerThatNeverStopsSendingIsNotReadForever(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := testkit.NewNetwork()
		w := dialTest(t, WriterConfig{Address: "peer:1", Dial: network.Dial})
		conn, sent := <-network.Servers, 0
		go func() { // ends when the Writer closes the connection
			for {
				n, err := conn.Write(make([]byte, 512))
				if sent += n; err != nil {
					return
				}
			}
		}()
		synctest.Wait()
		assert.Equal(t, discardLimit, sent)
		require.NoError(t, w.Close())
	})
}
