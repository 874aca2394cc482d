package outbox

import (
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/store"
)

// TestSettle_FreesSegmentsWhateverComesWithThem empties segments with one of several ranges, or of several calls. What
// comes behind it empties none.
func TestSettle_FreesSegmentsWhateverComesWithThem(t *testing.T) {
	full, one := store.Range{First: 1, Last: 700}, store.Range{First: 990, Last: 990}
	for what, settle := range map[string]func(*Outbox) error{
		"through":     func(o *Outbox) error { return o.Settle(orders, full.Last, one) },
		"first range": func(o *Outbox) error { return o.Settle(orders, 0, full, one) },
		"last range":  func(o *Outbox) error { return o.Settle(orders, 0, one, full) },
		"first call": func(o *Outbox) error {
			if err := o.Settle(orders, 0, full); err != nil {
				return err
			}
			return o.Settle(orders, 0, one)
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			d := newMemDisk(1)
			o := open(t, d.config())
			fill(t, o, orders, 1, 1000, 10)
			synctest.Wait()
			segments, gate := len(d.names()), make(chan struct{})
			d.gate = func() { <-gate }
			go func() { _, _ = o.Append(bg, events, message(1)) }() // ends with gate
			synctest.Wait()                                         // the committer looks again when that is written
			require.NoError(t, settle(o))
			close(gate)
			synctest.Wait()
			require.Less(t, len(d.names()), segments-2, what)
			require.NoError(t, o.Close())
		})
	}
}

// TestForget_WhileAnAppendIsUnderWay must not take the message with it.
func TestForget_WhileAnAppendIsUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newMemDisk(1)
		o := open(t, d.config())
		fill(t, o, orders, 1, 5, 1)
		require.NoError(t, o.Settle(orders, 5))
		gate := make(chan struct{})
		d.gate = func() { <-gate }
		go func() { _, _ = o.Append(bg, orders, message(6)) }() // ends with gate
		synctest.Wait()
		require.ErrorIs(t, o.Forget(bg, orders), store.ErrPending)
		close(gate)
		synctest.Wait()
		require.Equal(t, sequence(6, 6), readAll(t, o, orders, 1, 100))
		require.NoError(t, o.Close())
	})
}

// TestForget_BetweenAppendsOfOneStream, all in one fsync: what the log has of the stream goes on behind the record in
// the middle.
func TestForget_BetweenAppendsOfOneStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newMemDisk(1)
		o := open(t, d.config())
		fill(t, o, orders, 1, 5, 1)
		fill(t, o, events, 1, 5, 1)
		require.NoError(t, o.Settle(events, 5))
		gate := make(chan struct{})
		d.gate = func() { <-gate }
		for n := uint64(6); n <= 8; n++ {
			go func() { _, _ = o.Append(bg, orders, message(n)) }() // ends with gate
			synctest.Wait()
			if n == 7 {
				go func() { _ = o.Forget(bg, events) }() // ends with gate
				synctest.Wait()
			}
		}
		close(gate)
		synctest.Wait()
		require.Equal(t, sequence(1, 8), readAll(t, o, orders, 1, 100))
		crashed := d.restart(1)
		require.NoError(t, o.Close())
		o = open(t, crashed.config())
		require.Equal(t, sequence(1, 8), readAll(t, o, orders, 1, 100))
		require.Zero(t, streamID(o, events))
		checkIndex(t, o) // what it had is not counted
		require.NoError(t, o.Settle(orders, 8))
		require.NoError(t, o.Drain(bg))
		require.NoError(t, o.Close())
	})
}

// TestForget_TellsHowItEnded: it shares the fsync of appends, and its failure.
func TestForget_TellsHowItEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newMemDisk(1)
		o := open(t, d.config())
		fill(t, o, orders, 1, 5, 1)
		fill(t, o, events, 1, 5, 1)
		require.NoError(t, o.Settle(orders, 5))
		require.NoError(t, o.Settle(events, 5))
		gate := make(chan struct{})
		d.gate = func() { <-gate }
		d.onSync = func() error { return ioError }
		go func() { _, _ = o.Append(bg, bills, message(1)) }() // ends with gate
		synctest.Wait()
		var err error
		go func() { err = o.Forget(bg, orders) }() // ends with gate
		synctest.Wait()
		require.ErrorIs(t, o.Forget(lookOnly(), events), lookOnly().Err())
		require.NoError(t, err)
		close(gate)
		synctest.Wait()
		require.ErrorIs(t, err, store.ErrFailed)
		require.ErrorIs(t, o.Close(), ioError)
	})
}

// TestStreams_BelongToTheirDestination until the last one is forgotten: an address that is gone takes no memory.
func TestStreams_BelongToTheirDestination(t *testing.T) {
	o := open(t, newMemDisk(1).config())
	keys := []store.Key{{Destination: "b", Topic: "2"}, {Destination: "a", Topic: "2"}, {Destination: "b", Topic: "1"}, {Destination: "a"},
		{Destination: "c"}, {Destination: "b"}, {Destination: "0"}}
	for _, k := range keys {
		fill(t, o, k, 1, 1, 1)
	}
	for len(keys) > 0 {
		var got []store.Key
		names := map[string]bool{}
		for _, s := range o.Streams() {
			got = append(got, s.Key)
			names[s.Key.Destination] = true
		}
		require.Equal(t, keys, got, "in the order in which they were created")
		require.Len(t, o.index.destinations, len(names))
		require.NoError(t, o.Settle(keys[0], 1))
		require.NoError(t, o.Forget(bg, keys[0]))
		keys = keys[1:]
	}
	require.Empty(t, o.index.destinations)
}
