package flush

import (
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/leaktest"
)

func TestALateFlushComes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var flushed atomic.Int32
		f := New(nil, func() { flushed.Add(1) }, nil)
		for n := range int32(3) {
			f.Later()
			f.Later()
			synctest.Wait()
			require.Equal(t, n, flushed.Load(), "not at once")
			time.Sleep(lateBy)
			synctest.Wait()
			require.Equal(t, n+1, flushed.Load())
		}
		f.Later()
		f.Kick()
		synctest.Wait()
		require.EqualValues(t, 4, flushed.Load(), "somebody waits now")
		time.Sleep(2 * lateBy)
		synctest.Wait()
		require.EqualValues(t, 4, flushed.Load(), "nothing is left")
		f.Later()
		f.Close()
		time.Sleep(2 * lateBy)
		require.EqualValues(t, 4, flushed.Load())
	})
}

// TestADirectFlushExcludesOthers: whoever flushes, one does so at a time, and no kick is lost.
func TestADirectFlushExcludesOthers(t *testing.T) {
	leaktest.Check(t)
	c := NewWorkers()
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
	f := New(c, flush, func() (left bool) {
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
					f.Direct()
				} else {
					f.Kick()
				}
			}
		})
	}
	wg.Wait()
	require.Eventually(t, func() bool { return done.Load() == wanted.Load() }, 10*time.Second, time.Millisecond)
	f.Close()
	c.Close()
}
