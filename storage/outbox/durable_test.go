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

func TestReady_AndNewStreams(t *testing.T) {
	o := open(t, newMemDisk(1).config())
	appeared := o.NewStreams()
	fill(t, o, orders, 1, 3, 1)
	<-appeared
	appeared = o.NewStreams()
	ready, err := o.Ready(orders, 3)
	require.NoError(t, err)
	<-ready
	ready, err = o.Ready(orders, 4)
	require.NoError(t, err)
	again, err := o.Ready(orders, 4)
	require.NoError(t, err)
	assert.Equal(t, ready, again)
	select {
	case <-ready:
		t.Fatal("nothing was appended")
	case <-appeared:
		t.Fatal("no stream appeared")
	default:
	}
	fill(t, o, orders, 4, 4, 1)
	<-ready
	ready, err = o.Ready(orders, 6)
	require.NoError(t, err)
	require.NoError(t, o.Close())
	<-ready
	<-appeared
	<-o.NewStreams()
}

func TestClose_FailsEveryCall(t *testing.T) {
	o := open(t, newMemDisk(1).config())
	fill(t, o, orders, 1, 3, 1)
	drained := make(chan error)
	go func() { drained <- o.Drain(bg) }() // ends with Close
	require.NoError(t, o.Close())
	require.ErrorIs(t, <-drained, store.ErrClosed)
	requireAll(t, o, store.ErrClosed)
	require.NoError(t, o.Close())
}

// requireAll asks for the same error of every call.
func requireAll(t *testing.T, o *Outbox, want error) {
	t.Helper()
	_, err := o.Append(bg, orders, nil)
	require.ErrorIs(t, err, want)
	_, err = o.Read(orders, 1, 1)
	require.ErrorIs(t, err, want)
	_, err = o.Ready(orders, 1)
	require.ErrorIs(t, err, want)
	require.ErrorIs(t, o.Settle(orders, 1), want)
	require.ErrorIs(t, o.Forget(bg, orders), want)
	require.ErrorIs(t, o.Drain(bg), want)
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
		go func() { done = o.Drain(bg) == nil }()
		synctest.Wait()
		require.NoError(t, o.Settle(orders, 3))
		synctest.Wait()
		assert.False(t, done)
		require.NoError(t, o.Settle(events, 2, store.Range{First: 3, Last: 3}))
		synctest.Wait()
		assert.True(t, done)
		require.NoError(t, o.Close())
	})
}

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

func TestRead_ReturnsNothingBeforeItsFsync(t *testing.T) {
	d := newMemDisk(1)
	synctest.Test(t, func(t *testing.T) {
		o := open(t, d.config())
		fill(t, o, orders, 1, 5, 1)
		gate := make(chan struct{})
		d.gate = func() { <-gate }
		go func() { _, _ = o.Append(bg, orders, message(6)) }()
		synctest.Wait()
		require.Equal(t, sequence(1, 5), readAll(t, o, orders, 1, 100))
		require.NoError(t, o.Settle(orders, 6), "what is not durable cannot be settled")
		ready, err := o.Ready(orders, 6)
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

func TestFsync_AFailureIsFinal(t *testing.T) {
	broken := errors.New("input/output error")
	d := newMemDisk(1)
	o := open(t, d.config())
	fill(t, o, orders, 1, 5, 1)
	ready, err := o.Ready(orders, 6)
	require.NoError(t, err)
	d.onSync = func() error { return broken }
	_, err = o.Append(bg, orders, message(6))
	require.ErrorIs(t, err, store.ErrFailed)
	require.ErrorIs(t, err, broken)
	<-ready
	d.onSync = nil
	syncs := d.syncs
	requireAll(t, o, store.ErrFailed)
	assert.Equal(t, syncs, d.syncs, "it is never retried")
	require.ErrorIs(t, o.Close(), broken)

	o = open(t, d.config())
	got := readAll(t, o, orders, 1, 100)
	assert.GreaterOrEqual(t, len(got), 5, "what was confirmed is there")
	assert.LessOrEqual(t, len(got), 6)
}
