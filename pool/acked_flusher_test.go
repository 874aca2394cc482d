package pool

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestALateFlushComes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var flushed atomic.Int32
		f := newFlusher(nil, func() { flushed.Add(1) }, nil)
		for n := range int32(3) {
			f.later()
			f.later()
			synctest.Wait()
			require.Equal(t, n, flushed.Load(), "not at once")
			time.Sleep(lateBy)
			synctest.Wait()
			require.Equal(t, n+1, flushed.Load())
		}
		f.later()
		f.kick()
		synctest.Wait()
		require.EqualValues(t, 4, flushed.Load(), "somebody waits now")
		time.Sleep(2 * lateBy)
		synctest.Wait()
		require.EqualValues(t, 4, flushed.Load(), "nothing is left")
		f.later()
		f.close()
		time.Sleep(2 * lateBy)
		require.EqualValues(t, 4, flushed.Load())
	})
}

// TestADirectFlushExcludesOthers: whoever flushes, one does so at a time, and no kick is lost.
func TestADirectFlushExcludesOthers(t *testing.T) {
	noLeaks(t)
	c := newCrew()
	var at atomic.Int32
	var wanted, done atomic.Int64
	flush := func() {
		require.EqualValues(t, 1, at.Add(1))
		n := wanted.Load()
		if n > done.Load() {
			done.Store(n)
		}
		at.Add(-1)
	}
	turn := 0
	f := newFlusher(c, flush, func() (left bool) {
		flush()
		turn++
		return turn%3 == 0
	})
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for range 2000 {
				wanted.Add(1)
				if g%2 == 0 {
					f.direct()
				} else {
					f.kick()
				}
			}
		})
	}
	wg.Wait()
	require.Eventually(t, func() bool { return done.Load() == wanted.Load() }, 10*time.Second, time.Millisecond)
	f.close()
	c.close()
}

// TestWhatASocketDoesNotTakeAtOnceFollows: bytes that a full socket did not take are written behind it, in order.
func TestWhatASocketDoesNotTakeAtOnceFollows(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	near, err := net.Dial("tcp", ln.Addr().String())
	require.NoError(t, err)
	defer near.Close()
	far, err := ln.Accept()
	require.NoError(t, err)
	defer far.Close()
	e := emptyEndpoint(endpointConfig{AckedConfig: AckedConfig{WriteTimeout: 10 * time.Second}})
	c := newEndpointConn(e, near)
	require.NotNil(t, c.once, "a TCP socket can be tried")

	var want []byte
	say := func(b byte, n int) {
		chunk := make([]byte, n)
		for i := range chunk {
			chunk[i] = b
		}
		want = append(want, chunk...)
		c.mu.Lock()
		c.control = append(c.control, chunk...)
		c.mu.Unlock()
	}
	say(1, 16<<20) // more than any socket takes
	c.flusher.direct()
	say(2, 1000)
	c.flusher.direct()
	got := make(chan []byte)
	go func() { // ends with the connection
		all, _ := io.ReadAll(far)
		got <- all
	}()
	c.flusher.kick()
	c.flusher.close()
	require.NoError(t, near.Close())
	require.Equal(t, want, <-got)
}
