package flush

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Kicks come from many goroutines while flush runs: it never runs twice at a time, and Close returns only when it has
// seen what was there at the last kick.
func TestFlusher_RunsOneFlushAtATimeAndLosesNoKick(t *testing.T) {
	w := NewWorkers()
	defer w.Close()
	var running atomic.Int32
	var wanted, flushed atomic.Int64
	f := New(w, func() {
		assert.EqualValues(t, 1, running.Add(1))
		flushed.Store(wanted.Load())
		running.Add(-1)
	})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() { // ends after its kicks; the test waits for it
			for range 2000 {
				wanted.Add(1)
				f.Kick()
			}
		})
	}
	wg.Wait()
	f.Close()
	require.Equal(t, wanted.Load(), flushed.Load())
}

// Close comes while flush is blocked and kicked once more: it waits for the second flush, and a kick after it does
// nothing.
func TestFlusher_CloseWaitsForTheFlushThatWasKicked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		block := make(chan struct{})
		var flushes atomic.Int32
		f := New(nil, func() {
			flushes.Add(1)
			<-block
		})
		f.Kick()
		synctest.Wait()
		f.Kick()
		var closed atomic.Bool
		go func() { // ends with Close
			f.Close()
			closed.Store(true)
		}()
		synctest.Wait()
		require.False(t, closed.Load(), "flush runs")
		block <- struct{}{}
		synctest.Wait()
		require.False(t, closed.Load(), "the kick meanwhile is not forgotten")
		block <- struct{}{}
		synctest.Wait()
		require.True(t, closed.Load())
		f.Kick()
		synctest.Wait()
		require.EqualValues(t, 2, flushes.Load())
		f.Close()
	})
}

// Sync waits for a flush that has begun after it, not for the one that is under way.
func TestFlusher_SyncWaitsForAFlushThatBeganAfterIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		block := make(chan struct{})
		f := New(nil, func() { <-block })
		f.Kick()
		synctest.Wait()
		var synced atomic.Int32
		for range 2 {
			go func() { // ends with the second flush
				f.Sync(t.Context())
				synced.Add(1)
			}()
		}
		synctest.Wait()
		block <- struct{}{}
		synctest.Wait()
		require.Zero(t, synced.Load())
		block <- struct{}{}
		synctest.Wait()
		require.EqualValues(t, 2, synced.Load())

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		f.Sync(ctx) // nothing lets it end
		close(block)
		f.Close()
		f.Sync(t.Context()) // nothing begins any more
	})
}
