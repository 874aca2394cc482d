package outbox

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/store"
)

func isClosed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

func readable(t *testing.T, o *Outbox, k store.Key, seq uint64) <-chan struct{} {
	t.Helper()
	ch, err := o.Readable(k, seq)
	require.NoError(t, err)
	return ch
}

func TestReadable_ClosesAtItsSequence(t *testing.T) {
	o := open(t, newMemDisk(1).config())
	fill(t, o, orders, 1, 3, 1)
	require.True(t, isClosed(readable(t, o, orders, 3)), "it is readable already")
	// The later one waits first.
	sixth, fifth, fourth := readable(t, o, orders, 6), readable(t, o, orders, 5), readable(t, o, orders, 4)
	assert.Equal(t, fifth, readable(t, o, orders, 5))
	fill(t, o, events, 1, 9, 9)
	require.False(t, isClosed(fourth), "another stream grew")
	fill(t, o, orders, 4, 5, 2)
	require.True(t, isClosed(fourth))
	require.True(t, isClosed(fifth))
	require.False(t, isClosed(sixth))
	require.NoError(t, o.Close())
	require.True(t, isClosed(sixth))
}

func TestNewStreams_ClosesWhenAStreamIsCreated(t *testing.T) {
	o := open(t, newMemDisk(1).config())
	created := o.NewStreams()
	require.False(t, isClosed(created))
	fill(t, o, orders, 1, 3, 1)
	require.True(t, isClosed(created))
	created = o.NewStreams()
	fill(t, o, orders, 4, 6, 1)
	require.False(t, isClosed(created), "the stream is not new")
	require.NoError(t, o.Close())
	require.True(t, isClosed(created))
	require.True(t, isClosed(o.NewStreams()))
}

func TestDrain_WaitsForTheLastMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := open(t, newMemDisk(1).config())
		fill(t, o, orders, 1, 3, 1)
		fill(t, o, events, 1, 3, 1)
		ctx, cancel := context.WithCancel(bg)
		cancel()
		require.ErrorIs(t, o.Drain(ctx), context.Canceled)
		done := false
		go func() { done = o.Drain(bg) == nil }() // ends when all is settled
		synctest.Wait()
		require.NoError(t, o.Settle(orders, 3))
		synctest.Wait()
		assert.False(t, done)
		require.NoError(t, o.Settle(events, 1, store.Range{First: 3, Last: 3}))
		synctest.Wait()
		assert.False(t, done, "the last message is settled, and one before it is not")
		require.NoError(t, o.Settle(events, 2))
		synctest.Wait()
		assert.True(t, done)
		require.NoError(t, o.Close())
	})
}

func TestAcquire_GivesTheDutyToOneAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := open(t, newMemDisk(1).config())
		release, err := o.Acquire(bg)
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(bg)
		var abandoned error
		go func() { _, abandoned = o.Acquire(ctx) }() // ends with cancel
		granted := make(chan func(), 2)
		for range cap(granted) {
			go func() { // ends when the callers before have released
				release, err := o.Acquire(bg)
				assert.NoError(t, err)
				granted <- release
			}()
		}
		synctest.Wait()
		require.Empty(t, granted, "the first caller has the duty")
		cancel()
		synctest.Wait()
		require.ErrorIs(t, abandoned, context.Canceled)
		require.NoError(t, o.Close())
		require.Empty(t, granted, "Close does not take the duty from the caller that has it")
		release()
		for range cap(granted) {
			synctest.Wait()
			require.Len(t, granted, 1)
			(<-granted)()
		}
		release, err = o.Acquire(bg)
		require.NoError(t, err)
		release()
	})
}

func TestClose_FailsEveryCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := open(t, newMemDisk(1).config())
		fill(t, o, orders, 1, 3, 1)
		var drained error
		go func() { drained = o.Drain(bg) }() // ends with Close
		synctest.Wait()
		require.NoError(t, o.Close())
		synctest.Wait()
		require.ErrorIs(t, drained, store.ErrClosed)
		requireAll(t, o, store.ErrClosed)
		require.NoError(t, o.Close())
	})
}

// requireAll requires the same error of every call. Those that could wait come last.
func requireAll(t *testing.T, o *Outbox, want error) {
	t.Helper()
	for _, call := range []func() error{
		o.Err,
		func() error { return o.Settle(orders, 1) },
		func() error { _, err := o.Read(orders, 1, 1); return err },
		func() error { _, err := o.Readable(orders, 1); return err },
		func() error { return o.Drain(bg) },
		func() error { return o.Forget(bg, orders) },
		func() error { _, err := o.Append(bg, orders, nil); return err },
	} {
		require.ErrorIs(t, call(), want)
	}
}

// TestFailure_EndsEveryWait lets an fsync fail while calls of all kinds wait, one of them for the fsync after it.
func TestFailure_EndsEveryWait(t *testing.T) {
	broken := errors.New("input/output error")
	d := newMemDisk(1)
	synctest.Test(t, func(t *testing.T) {
		o := open(t, d.config())
		fill(t, o, orders, 1, 5, 1)
		sixth, created := readable(t, o, orders, 6), o.NewStreams()
		failNow := make(chan struct{})
		d.onSync = func() error { <-failNow; return broken }
		var errs [3]error
		go func() { _, errs[0] = o.Append(bg, orders, message(6)) }() // all three end with the failure
		synctest.Wait()
		go func() { _, errs[1] = o.Append(bg, events, message(1)) }()
		go func() { errs[2] = o.Drain(bg) }()
		synctest.Wait()
		require.Equal(t, [3]error{}, errs)
		close(failNow)
		synctest.Wait()
		for _, err := range errs {
			require.ErrorIs(t, err, store.ErrFailed)
			require.ErrorIs(t, err, broken)
		}
		require.True(t, isClosed(sixth))
		require.True(t, isClosed(created))
		requireAll(t, o, store.ErrFailed)
		require.ErrorIs(t, o.Close(), broken)
	})
}

// TestClose_CommitsAppendsUnderWay, one in its fsync and one that waits for the next, which creates a stream. Which of
// Close and the append the committer sees first is chance, so that several outboxes are closed.
func TestClose_CommitsAppendsUnderWay(t *testing.T) {
	for range 10 {
		synctest.Test(t, func(t *testing.T) {
			d := newMemDisk(1)
			o := open(t, d.config())
			synctest.Wait()
			created, gate := o.NewStreams(), make(chan struct{})
			d.gate = func() { <-gate }
			errs := make(chan error, 3)
			for _, k := range []store.Key{orders, events} {
				go func() { _, err := o.Append(bg, k, message(1)); errs <- err }() // ends with gate
				synctest.Wait()
			}
			go func() { errs <- o.Close() }() // ends with gate
			synctest.Wait()
			require.Empty(t, errs)
			require.True(t, isClosed(created), "Close ends all waits")
			close(gate)
			synctest.Wait()
			require.Len(t, errs, cap(errs))
			for range cap(errs) {
				require.NoError(t, <-errs)
			}
			o = open(t, d.config())
			require.Equal(t, sequence(1, 1), readAll(t, o, orders, 1, 100))
			require.Equal(t, sequence(1, 1), readAll(t, o, events, 1, 100))
			require.NoError(t, o.Close())
		})
	}
}

// TestCommit_WritesNothingForARefusedAppend though the committer looks.
func TestCommit_WritesNothingForARefusedAppend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newMemDisk(1)
		cfg := d.config()
		cfg.QuotaBytes = 100
		o := open(t, cfg)
		fill(t, o, orders, 1, 1, 1)
		synctest.Wait()
		ops := d.ops
		_, err := o.Append(bg, orders, make([]byte, 100))
		require.ErrorIs(t, err, store.ErrOutboxFull)
		o.poke()
		synctest.Wait()
		require.Equal(t, ops, d.ops)
		require.NoError(t, o.Close())
	})
}
