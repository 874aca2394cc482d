package outbox

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/store"
)

func TestAppend_SharesFsyncs(t *testing.T) {
	d := newMemDisk(1)
	cfg := d.config()
	cfg.SegmentBytes = 1 << 20
	synctest.Test(t, func(t *testing.T) {
		o := open(t, cfg)
		synctest.Wait()
		before := d.syncs
		gate := make(chan struct{})
		d.gate = func() { <-gate }
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() {
				_, err := o.Append(bg, orders, []byte("x"))
				assert.NoError(t, err)
			})
		}
		synctest.Wait() // one group in its fsync, all others in the next
		b, err := o.Read(orders, 1, 1<<20)
		if err == nil {
			assert.Empty(t, b.Messages, "nothing is readable before its fsync")
		} else {
			assert.ErrorIs(t, err, store.ErrUnknownStream)
		}
		close(gate)
		wg.Wait()
		assert.LessOrEqual(t, d.syncs-before, 2)
		b, err = o.Read(orders, 1, 1<<20)
		require.NoError(t, err)
		assert.Len(t, b.Messages, 100)
		require.NoError(t, o.Close())
	})
}

// TestRead_ReturnsNothingBeforeItsFsync looks while an fsync is under way.
func TestRead_ReturnsNothingBeforeItsFsync(t *testing.T) {
	d := newMemDisk(1)
	synctest.Test(t, func(t *testing.T) {
		o := open(t, d.config())
		fill(t, o, orders, 1, 5, 1)
		gate := make(chan struct{})
		d.gate = func() { <-gate }
		confirmed := false
		go func() { _, err := o.Append(bg, orders, message(6)); confirmed = err == nil }() // ends with gate
		synctest.Wait()
		require.False(t, confirmed)
		require.Equal(t, sequence(1, 5), readAll(t, o, orders, 1, 100))
		require.NoError(t, o.Settle(orders, 6), "what is not durable cannot be settled")
		ready, err := o.Readable(orders, 6)
		require.NoError(t, err)
		synctest.Wait()
		select {
		case <-ready:
			t.Error("ready before the fsync")
		default:
		}
		ctx, cancel := context.WithCancel(bg)
		cancelled := make(chan error)
		go func() { _, err := o.Append(ctx, orders, message(7)); cancelled <- err }()
		synctest.Wait()
		cancel()
		var unconfirmed *store.UnconfirmedError
		require.ErrorAs(t, <-cancelled, &unconfirmed)
		assert.Equal(t, store.UnconfirmedError{First: 7, Count: 1, Err: context.Canceled}, *unconfirmed)
		close(gate)
		<-ready
		synctest.Wait()
		require.Equal(t, sequence(6, 7), readAll(t, o, orders, 1, 100))
		require.NoError(t, o.Close())
	})
}

// TestFsync_AFailureIsFinal lets one fsync fail, and no other: a second attempt would succeed, and prove nothing about
// what the disk holds.
func TestFsync_AFailureIsFinal(t *testing.T) {
	broken := errors.New("input/output error")
	d := newMemDisk(1)
	o := open(t, d.config())
	fill(t, o, orders, 1, 5, 1)
	failures := 0
	d.onSync = func() error {
		if failures++; failures == 1 {
			return broken
		}
		return nil
	}
	_, err := o.Append(bg, orders, message(6))
	require.ErrorIs(t, err, store.ErrFailed)
	require.ErrorIs(t, err, broken)
	syncs := d.syncs
	requireAll(t, o, store.ErrFailed)
	assert.Equal(t, syncs, d.syncs, "it is never retried")
	require.ErrorIs(t, o.Close(), broken)
	assert.Equal(t, 1, failures)

	o = open(t, d.config())
	got := readAll(t, o, orders, 1, 100)
	assert.GreaterOrEqual(t, len(got), 5, "what was confirmed is there")
	assert.LessOrEqual(t, len(got), 6)
}

// TestForget_IsDurableWhenItReturns cuts the power right after Forget, so that no Close saves the table of streams.
func TestForget_IsDurableWhenItReturns(t *testing.T) {
	d := newMemDisk(1)
	synctest.Test(t, func(t *testing.T) {
		o := open(t, d.config())
		fill(t, o, orders, 1, 5, 1)
		require.NoError(t, o.Settle(orders, 5))
		gate := make(chan struct{})
		d.gate = func() { <-gate }
		forgotten := false
		go func() { forgotten = o.Forget(bg, orders) == nil }() // ends with gate
		synctest.Wait()
		require.False(t, forgotten, "its fsync has not ended")
		close(gate)
		synctest.Wait()
		require.True(t, forgotten)
		crashed := d.restart(1)
		require.NoError(t, o.Close())

		o = open(t, crashed.config())
		require.Empty(t, o.Streams())
		fill(t, o, orders, 1, 2, 1)
		require.EqualValues(t, 2, streamID(o, orders), "the number is not used again")
		crashed = crashed.restart(2)
		require.NoError(t, o.Close())

		o = open(t, crashed.config())
		require.EqualValues(t, 2, streamID(o, orders))
		require.Equal(t, sequence(1, 2), readAll(t, o, orders, 1, 100))
		require.NoError(t, o.Close())
	})
}

func TestSettle_IsSavedWithTheNextAppend(t *testing.T) {
	d := newMemDisk(1)
	o := open(t, d.config())
	fill(t, o, orders, 1, 10, 5)
	require.NoError(t, o.Settle(orders, 4))
	fill(t, o, events, 1, 1, 1) // of any stream
	require.Equal(t, sequence(5, 10), readAll(t, open(t, d.restart(1).config()), orders, 1, 100))
}

// TestSettle_IsSavedWithoutAnAppend settles so much, but no segment as a whole, that it is saved for its own sake.
func TestSettle_IsSavedWithoutAnAppend(t *testing.T) {
	d := newMemDisk(1)
	cfg := d.config()
	cfg.SegmentBytes = 1 << 20
	synctest.Test(t, func(t *testing.T) {
		o := open(t, cfg)
		fill(t, o, orders, 1, saveEvery+2, 1000)
		require.NoError(t, o.Settle(orders, 0, store.Range{First: 2, Last: saveEvery + 1}))
		synctest.Wait()
		crashed := d.restart(1)
		require.NoError(t, o.Close())
		o = open(t, crashed.configWith(cfg))
		require.Equal(t, []uint64{1, saveEvery + 2}, readAll(t, o, orders, 1, 1<<20))
		require.NoError(t, o.Close())
	})
}
