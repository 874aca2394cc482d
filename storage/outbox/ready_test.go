package outbox

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/store"
)

// lookOnly is a context that is done.
func lookOnly() context.Context {
	ctx, cancel := context.WithCancel(bg)
	cancel()
	return ctx
}

// A destination without room is named, until it has room for what was refused, or takes something smaller.
func TestOutboxReady_NamesFullDestinations(t *testing.T) {
	cfg := newMemDisk(1).config()
	cfg.QuotaBytes = 1000
	o := open(t, cfg)
	require.NoError(t, o.Ready(lookOnly()))
	_, err := o.Append(bg, orders, make([]byte, 600))
	require.NoError(t, err)
	fill(t, o, events, 1, 1, 1)

	_, err = o.Append(bg, orders, make([]byte, 2000))
	require.ErrorIs(t, err, store.ErrOutboxFull)
	require.NoError(t, o.Ready(lookOnly()), "what is over the quota alone never has room")

	_, err = o.Append(bg, orders, make([]byte, 500))
	require.ErrorIs(t, err, store.ErrOutboxFull)
	err = o.Ready(lookOnly())
	var notReady *store.NotReadyError
	require.ErrorAs(t, err, &notReady)
	require.Equal(t, "mem", notReady.Outbox)
	require.Len(t, notReady.Reasons, 1, "the other destination has room")
	require.ErrorIs(t, err, store.ErrNotReady)
	var full *store.FullError
	require.ErrorAs(t, err, &full)
	require.Equal(t, orders.Destination, full.Destination)
	require.Contains(t, err.Error(), orders.Destination)
	require.Equal(t, []string{full.Error()}, o.Stats().NotReady)

	_, err = o.Append(bg, orders, make([]byte, 2000))
	require.ErrorIs(t, err, store.ErrOutboxFull)
	require.Error(t, o.Ready(lookOnly()), "what could never be taken changes nothing")

	ready := make(chan error, 1)
	go func() { ready <- o.Ready(bg) }() // ends with the Settle
	require.NoError(t, o.Settle(orders, 1))
	require.NoError(t, <-ready)

	fill(t, o, orders, 2, 2, 1)
	_, err = o.Append(bg, orders, make([]byte, 970))
	require.ErrorIs(t, err, store.ErrOutboxFull)
	require.Error(t, o.Ready(lookOnly()))
	fill(t, o, orders, 3, 3, 1)
	require.NoError(t, o.Ready(lookOnly()), "it has taken something since")
}

func TestOutboxReady_BoundsWhatItNames(t *testing.T) {
	cfg := newMemDisk(1).config()
	cfg.QuotaBytes = 100
	o := open(t, cfg)
	for i := range 3 * maxReasons {
		k := store.Key{Destination: fmt.Sprintf("host-%02d:1", i)}
		_, err := o.Append(bg, k, make([]byte, 40))
		require.NoError(t, err)
		_, err = o.Append(bg, k, make([]byte, 60))
		require.ErrorIs(t, err, store.ErrOutboxFull)
	}
	var notReady *store.NotReadyError
	require.ErrorAs(t, o.Ready(lookOnly()), &notReady)
	require.Len(t, notReady.Reasons, maxReasons)
	require.Len(t, o.Stats().NotReady, maxReasons)
}

// A disk that hangs lets Append wait, and nothing fails: Ready says since when.
func TestOutboxReady_DiskThatHangs(t *testing.T) {
	d := newMemDisk(1)
	synctest.Test(t, func(t *testing.T) {
		o := open(t, d.config())
		hang := make(chan struct{})
		goOn := sync.OnceFunc(func() { close(hang) })
		defer goOn()
		d.onSync = func() error { <-hang; return nil }
		began := time.Now()
		appended := make(chan error, 1)
		go func() { // ends with the hang
			_, err := o.Append(bg, orders, message(1))
			appended <- err
		}()
		synctest.Wait()
		require.NoError(t, o.Ready(lookOnly()), "a write may take a while")
		time.Sleep(slowWrite + time.Millisecond)
		synctest.Wait()
		within, cancel := context.WithTimeout(bg, 100*time.Millisecond)
		defer cancel()
		err := o.Ready(within)
		var slow *store.SlowDiskError
		require.ErrorAs(t, err, &slow)
		require.WithinDuration(t, began, slow.Since, time.Microsecond)
		require.WithinDuration(t, began, o.Stats().WritingSince, time.Microsecond)
		goOn()
		require.NoError(t, o.Ready(bg))
		require.NoError(t, <-appended)
		synctest.Wait()
		require.Zero(t, o.Stats().WritingSince)
		require.NoError(t, o.Close())
	})
}

// What does not come back is said at once, also to a caller that could wait.
func TestOutboxReady_ClosedAndFailed(t *testing.T) {
	o := open(t, newMemDisk(1).config())
	require.NoError(t, o.Close())
	require.ErrorIs(t, o.Ready(bg), store.ErrClosed)

	d := newMemDisk(1)
	o = open(t, d.config())
	broken := errors.New("input/output error")
	d.onSync = func() error { return broken }
	_, err := o.Append(bg, orders, message(1))
	require.ErrorIs(t, err, store.ErrFailed)
	err = o.Ready(bg)
	require.ErrorIs(t, err, store.ErrFailed)
	require.ErrorIs(t, err, broken)
	require.ErrorIs(t, err, store.ErrNotReady)
	require.ErrorContains(t, err, "mem: ")
}

// Ready makes nothing: neither a stream nor an operation of the disk.
func TestOutboxReady_MakesNothing(t *testing.T) {
	d := newMemDisk(1)
	o := open(t, d.config())
	before := d.ops + d.reads
	for range 10 {
		require.NoError(t, o.Ready(bg))
	}
	require.Equal(t, before, d.ops+d.reads)
	require.Empty(t, o.Streams())
}
