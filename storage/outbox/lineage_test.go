package outbox

import (
	"encoding/binary"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/store"
)

// reopen closes an outbox and opens it again.
func reopen(t *testing.T, o *Outbox, cfg Config) *Outbox {
	t.Helper()
	require.NoError(t, o.Close())
	return open(t, cfg)
}

// Each open is an incarnation. The list is durable, and bounded.
func TestLineage_GrowsWithEachOpen(t *testing.T) {
	cfg := newMemDisk(1).config()
	o := open(t, cfg)
	var all []store.Incarnation
	for epoch := uint64(1); epoch < maxIncarnations+10; epoch++ {
		own := o.Lineage()
		last := own[len(own)-1]
		require.Equal(t, epoch, last.Epoch)
		require.NotZero(t, last.ID)
		require.NotContains(t, all, last)
		all = append(all, last)
		require.Equal(t, all[max(0, len(all)-maxIncarnations):], own)
		o = reopen(t, o, cfg)
	}
}

// An Open that fails on its way to the end leaves no incarnation that was never used beside the one of its epoch.
func TestLineage_HasOneIncarnationForEachEpoch(t *testing.T) {
	disk := newMemDisk(1)
	o := open(t, disk.config())
	require.NoError(t, o.Close())
	kept := disk.meta.stable[keyIdentity]
	o = open(t, disk.config())
	require.NoError(t, o.Close())
	disk.meta.stable[keyIdentity] = kept // the crash came after the lineage was saved
	o = open(t, disk.config())
	require.EqualValues(t, 2, o.Epoch())
	require.Len(t, o.Lineage(), 2)
}

// An outbox of older code has no lineage yet, and one that older code has opened in between has a gap.
func TestLineage_OlderCode(t *testing.T) {
	disk := newMemDisk(1)
	o := open(t, disk.config())
	id := o.ID()
	fill(t, o, orders, 1, 5, 5)
	require.NoError(t, o.Close())
	older := func() { // what older code does at each open
		value := append([]byte(nil), disk.meta.stable[keyIdentity]...)
		value = value[:len(value)-4]
		require.EqualValues(t, stateVersion, value[0])
		binary.BigEndian.PutUint64(value[33:], binary.BigEndian.Uint64(value[33:])+1)
		require.NoError(t, metaStore{disk}.set(keyIdentity, value))
	}
	delete(disk.meta.stable, keyLineage)
	older()
	o = open(t, disk.config())
	require.Equal(t, id, o.ID())
	require.Len(t, o.Lineage(), 1)
	require.EqualValues(t, 3, o.Lineage()[0].Epoch)
	require.NoError(t, o.Close())
	older()
	o = open(t, disk.config())
	require.Equal(t, []uint64{3, 5}, []uint64{o.Lineage()[0].Epoch, o.Lineage()[1].Epoch})
	require.Equal(t, sequence(1, 5), readAll(t, o, orders, 1, 100))
}

// A new identity is durable, and keeps messages, sequences and numbers. Older code, which would go on with the old one,
// does not open the outbox any more.
func TestRenounce_TakesANewIdentity(t *testing.T) {
	disk := newMemDisk(1)
	o := open(t, disk.config())
	fresh, err := o.Renounce()
	require.NoError(t, err)
	require.False(t, fresh, "nobody else can have it")
	fill(t, o, orders, 1, 20, 5)
	number := streamID(o, orders)
	require.NoError(t, o.Settle(orders, 7))
	o = reopen(t, o, disk.config())
	id, secret, epoch := o.ID(), o.Secret(), o.Epoch()

	renounced, err := o.Renounce()
	require.NoError(t, err)
	require.True(t, renounced)
	newID, newSecret := o.ID(), o.Secret()
	require.NotEqual(t, id, newID)
	require.NotEqual(t, secret, newSecret)
	require.Equal(t, epoch, o.Epoch())
	require.Len(t, o.Lineage(), 1)
	again, err := o.Renounce()
	require.NoError(t, err)
	require.False(t, again)
	fill(t, o, orders, 21, 25, 5)
	for range 2 {
		o = reopen(t, o, disk.config())
		require.Equal(t, newID, o.ID())
		require.Equal(t, newSecret, o.Secret())
		require.Equal(t, number, streamID(o, orders))
		require.Equal(t, sequence(8, 25), readAll(t, o, orders, 1, 100))
	}
	require.EqualValues(t, renouncedVersion, disk.meta.stable[keyIdentity][0])
	require.NoError(t, o.Close())
	delete(disk.meta.stable, keyLineage)
	_, err = Open(disk.config())
	var corrupt *store.CorruptError
	require.ErrorAs(t, err, &corrupt)
}

// Whatever fails, the outbox is one or the other afterwards, and all calls return.
func TestRenounce_Fails(t *testing.T) {
	for op := 1; op <= 2; op++ {
		disk := newMemDisk(1)
		o := open(t, disk.config())
		fill(t, o, orders, 1, 20, 5)
		o = reopen(t, o, disk.config())
		id := o.ID()
		disk.fault = fault{op: disk.ops + op, err: ioError}
		results := make(chan error, 3)
		for range cap(results) {
			go func() { // ends with the failure
				renounced, err := o.Renounce()
				assert.False(t, renounced)
				results <- err
			}()
		}
		for range cap(results) {
			require.ErrorIs(t, <-results, store.ErrFailed)
		}
		require.Equal(t, id, o.ID())
		require.Error(t, o.Close())
		disk.fault = fault{}
		o = open(t, disk.config())
		require.Equal(t, sequence(1, 20), readAll(t, o, orders, 1, 100))
		require.NoError(t, o.Close())
		_, err := o.Renounce()
		require.ErrorIs(t, err, store.ErrClosed)
	}
}

// Calls at the same time share one new identity, and all return.
func TestRenounce_CallsShareAnIdentity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := newMemDisk(1)
		o := reopen(t, open(t, disk.config()), disk.config())
		gate := make(chan struct{})
		disk.gate = func() { <-gate }
		go func() { _, _ = o.Append(bg, orders, message(1)) }() // ends with gate
		synctest.Wait()
		before, renounced := o.ID(), atomic.Int32{}
		for range 3 {
			go func() { // ends with gate
				if done, err := o.Renounce(); done && err == nil {
					renounced.Add(1)
				}
			}()
			synctest.Wait()
		}
		require.Equal(t, before, o.ID(), "it is not durable yet")
		close(gate)
		synctest.Wait()
		require.EqualValues(t, 3, renounced.Load())
		id := o.ID()
		require.NotEqual(t, before, id)
		require.Equal(t, o.Epoch(), o.Lineage()[0].Epoch)
		o = reopen(t, o, disk.config())
		require.Equal(t, id, o.ID())
		require.NoError(t, o.Close())
	})
}

// What cannot have been sent: what was stored since Open and not read.
func TestStreams_SayWhatCannotHaveBeenSent(t *testing.T) {
	cfg := newMemDisk(1).config()
	o := open(t, cfg)
	sent := func() uint64 { return o.Streams()[0].Sent }
	fill(t, o, orders, 1, 10, 5)
	require.EqualValues(t, 1, sent())
	b, err := o.Read(orders, 1, 1)
	require.NoError(t, err)
	require.Equal(t, b.Next(), sent())
	_, err = o.Read(orders, 4, 1<<20)
	require.NoError(t, err)
	require.EqualValues(t, 11, sent())
	_, err = o.Read(orders, 1, 1)
	require.NoError(t, err)
	require.EqualValues(t, 11, sent(), "it does not fall")
	fill(t, o, orders, 11, 20, 5)
	require.EqualValues(t, 11, sent())
	o = reopen(t, o, cfg)
	require.EqualValues(t, 21, sent(), "the process before may have sent it")
}

func FuzzDecodeLineage(f *testing.F) {
	l := lineage{id: [16]byte{1}, secret: [16]byte{2}}
	f.Add(l.encode())
	l.begin(1)
	l.begin(2)
	f.Add(l.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		if l, ok := decodeLineage(b); ok {
			require.Equal(t, b, l.encode())
		}
	})
}
