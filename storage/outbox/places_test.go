package outbox

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/store"
)

func TestPlaces_SurviveAReopen(t *testing.T) {
	dir, ctx := t.TempDir(), context.Background()
	o, err := Open(Config{Dir: dir})
	require.NoError(t, err)
	a, b := store.TopicKey("orders", "orders", 0, 3), store.TopicKey("orders", "orders", 0, 4)
	require.ErrorIs(t, o.SetPlace(ctx, a, store.Place{Address: "h:1", Tenure: 1}), store.ErrUnknownStream)
	for _, k := range []store.Key{a, b} {
		_, err = o.Append(ctx, k, []byte("x"))
		require.NoError(t, err)
	}
	require.Zero(t, o.Place(a))
	require.NoError(t, o.SetPlace(ctx, a, store.Place{Address: "h:1", Tenure: 1}))
	require.NoError(t, o.SetPlace(ctx, b, store.Place{Address: "h:2", Tenure: 1}))
	require.NoError(t, o.SetPlace(ctx, a, store.Place{Address: "h:3", Tenure: 2}))
	require.NoError(t, o.Settle(b, 1))
	require.NoError(t, o.Forget(ctx, b))
	require.NoError(t, o.Close())

	o, err = Open(Config{Dir: dir})
	require.NoError(t, err)
	require.Equal(t, store.Place{Address: "h:3", Tenure: 2}, o.Place(a))
	_, err = o.Append(ctx, b, []byte("y"))
	require.NoError(t, err)
	require.Zero(t, o.Place(b), "it is another stream")
	require.NoError(t, o.Close())
	require.ErrorIs(t, o.SetPlace(ctx, a, store.Place{}), store.ErrClosed)
}

func TestPlaces_QuotaIsPerTopic(t *testing.T) {
	o, err := Open(Config{Dir: t.TempDir(), QuotaBytes: 4096})
	require.NoError(t, err)
	defer func() { require.NoError(t, o.Close()) }()
	ctx, half := context.Background(), make([]byte, 2500)
	_, err = o.Append(ctx, store.TopicKey("orders", "orders", 0, 1), half)
	require.NoError(t, err)
	var full *store.FullError
	_, err = o.Append(ctx, store.TopicKey("orders", "orders", 0, 2), half)
	require.ErrorAs(t, err, &full)
	require.Equal(t, "topic:orders", full.Destination)
	_, err = o.Append(ctx, store.TopicKey("others", "others", 0, 2), half)
	require.NoError(t, err)
}

// TestSetPlace_EndsWithItsWrite: not before, whatever else ends it, and with the outbox if that write fails.
func TestSetPlace_EndsWithItsWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newMemDisk(1)
		o := open(t, d.config())
		fill(t, o, orders, 1, 1, 1)
		fill(t, o, events, 1, 1, 1)
		synctest.Wait()
		gate := make(chan struct{})
		d.gate = func() { <-gate }
		go func() { _, _ = o.Append(bg, bills, message(1)) }() // ends with gate
		synctest.Wait()
		errs := make(chan error, 3)
		for n, k := range []store.Key{orders, events, orders} {
			go func() { errs <- o.SetPlace(bg, k, store.Place{Address: "h:1", Tenure: uint64(n + 1)}) }() // ends with gate
			synctest.Wait()
		}
		require.Equal(t, context.Canceled, o.SetPlace(lookOnly(), orders, store.Place{Address: "h:1", Tenure: 4}))
		require.Empty(t, errs, "the committer is busy")
		ops := len(d.kinds)
		close(gate)
		synctest.Wait()
		require.Len(t, errs, 3)
		for range 3 {
			require.NoError(t, <-errs)
		}
		require.Equal(t, []opKind{opSync, opMeta}, d.kinds[ops:], "they share a write")
		crashed := d.restart(1)

		require.NoError(t, o.Settle(events, 1))
		require.NoError(t, o.Forget(bg, events))
		d.fault = fault{op: d.ops + 1, err: ioError}
		err := o.SetPlace(bg, orders, store.Place{Address: "h:2", Tenure: 5})
		require.ErrorIs(t, err, store.ErrFailed)
		require.ErrorIs(t, err, ioError)
		require.Len(t, o.places.of, 1, "the other stream was forgotten")
		require.ErrorIs(t, o.Close(), ioError)
		o = open(t, crashed.config())
		require.Equal(t, store.Place{Address: "h:1", Tenure: 4}, o.Place(orders))
		require.Equal(t, store.Place{Address: "h:1", Tenure: 2}, o.Place(events))
		require.NoError(t, o.Close())
	})
}

// TestSetPlace_EndsWithTheOutbox: an fsync fails while places wait to be saved.
func TestSetPlace_EndsWithTheOutbox(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newMemDisk(1)
		o := open(t, d.config())
		fill(t, o, orders, 1, 1, 1)
		gate := make(chan struct{})
		d.gate = func() { <-gate }
		d.onSync = func() error { return ioError }
		go func() { _, _ = o.Append(bg, orders, message(2)) }() // ends with gate
		synctest.Wait()
		var err error
		go func() { err = o.SetPlace(bg, orders, store.Place{Address: "h:1", Tenure: 1}) }() // ends with gate
		synctest.Wait()
		close(gate)
		synctest.Wait()
		require.ErrorIs(t, err, store.ErrFailed)
		require.ErrorIs(t, o.Close(), ioError)
		require.ErrorIs(t, o.Close(), ioError, "again")
		require.ErrorIs(t, o.Err(), store.ErrFailed, "that it was closed says less")
		require.Equal(t, []bool{true, false}, []bool{o.Stats().Closed, o.Stats().Err == store.ErrClosed.Error()})
	})
}
