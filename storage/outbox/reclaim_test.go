package outbox

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/store"
)

func TestReclaim_RemovesSettledSegments(t *testing.T) {
	d := newMemDisk(1)
	o := open(t, d.config())
	for first := uint64(1); first < 5000; first += 10 {
		fill(t, o, orders, first, first+9, 10)
		require.NoError(t, o.Settle(orders, first+9))
	}
	require.NoError(t, o.Close())
	o = open(t, d.config())
	require.NoError(t, o.Close())
	assert.LessOrEqual(t, d.bytes(), 3*d.config().SegmentBytes)
	assert.LessOrEqual(t, len(d.meta.stable), 2+2, "summaries go with their segments")
}

func TestReclaim_AStuckDestinationHoldsNoSpaceOfOthers(t *testing.T) {
	d := newMemDisk(1)
	cfg := d.config()
	cfg.CacheBytes = -1
	o := open(t, cfg)
	stuck := uint64(0)
	most, pending := 0, int64(0)
	for round := range uint64(400) {
		// Two messages that stay pending, and forty that are delivered.
		fill(t, o, orders, stuck+1, stuck+2, 1)
		stuck += 2
		fill(t, o, events, round*40+1, round*40+40, 8)
		require.Len(t, readAll(t, o, events, round*40+1, 1000), 40)
		require.NoError(t, o.Settle(events, round*40+40))
		most = max(most, d.bytes())
		pending = o.Streams()[0].Bytes
	}
	t.Logf("%d bytes pending, at most %d on disk, %d written for others", pending, most, 400*40*(MessageOverhead+14))
	assert.LessOrEqual(t, most, int(2*pending)+8*cfg.SegmentBytes)
	for range 3 {
		checkIndex(t, o)
		require.Equal(t, sequence(1, stuck), readAll(t, o, orders, 1, 500))
		require.NoError(t, o.Close())
		o = open(t, cfg)
	}
	require.Equal(t, sequence(stuck/2, stuck), readAll(t, o, orders, stuck/2, 500))
	require.NoError(t, o.Settle(orders, stuck))
	require.NoError(t, o.Close())
	o = open(t, cfg)
	require.NoError(t, o.Close())
	assert.LessOrEqual(t, d.bytes(), 3*cfg.SegmentBytes)
}

// TestRelocation_KeepsGapsAndSequences leaves a few of forty messages pending, in records that hold one of them or all.
func TestRelocation_KeepsGapsAndSequences(t *testing.T) {
	for _, batch := range []uint64{4, 40} {
		d := newMemDisk(1)
		cfg := d.config()
		cfg.CacheBytes = -1
		o := open(t, cfg)
		var want []uint64
		last := uint64(0)
		for n := uint64(1); n <= 40000; n += 40 {
			fill(t, o, orders, n, n+39, batch)
			last = n + 39
			require.NoError(t, o.Settle(orders, 0, store.Range{First: n, Last: n + 4}, store.Range{First: n + 6, Last: n + 16},
				store.Range{First: n + 19, Last: n + 29}, store.Range{First: n + 31, Last: n + 39}))
			want = append(want, n+5, n+17, n+18, n+30)
		}
		checkIndex(t, o)
		bound := len(want)*2*(MessageOverhead+15) + 8*cfg.SegmentBytes
		require.Eventually(t, func() bool { return d.bytes() <= bound }, 30*time.Second, time.Millisecond, "batches of %d", batch)
		for range 3 {
			require.Equal(t, want, readAll(t, o, orders, 1, 500))
			require.NoError(t, o.Close())
			o = open(t, cfg)
		}
		fill(t, o, orders, last+1, last+1, 1)
	}
}

// TestRelocation_LeavesADamagedSegment damages one of many segments that hold a few pending messages each: the others
// are relocated, and that one stays until its messages are settled.
func TestRelocation_LeavesADamagedSegment(t *testing.T) {
	d := newMemDisk(1)
	cfg := d.config()
	cfg.CacheBytes = -1
	o := open(t, cfg)
	var want []uint64
	damaged := ""
	for n := uint64(1); n <= 12000; n += 40 {
		fill(t, o, orders, n, n+39, 40)
		if n == 1 {
			name, offset := offsetOf(t, d, message(18))
			d.damage(t, name, offset)
			damaged = name
		} else {
			want = append(want, n+17)
		}
		require.NoError(t, o.Settle(orders, 0, store.Range{First: n, Last: n + 16}, store.Range{First: n + 18, Last: n + 39}))
	}
	assert.Contains(t, d.names(), damaged)
	require.Eventually(t, func() bool { return len(d.names()) < 20 }, 30*time.Second, time.Millisecond, "the others are relocated")
	var damage *store.CorruptError
	_, err := o.Read(orders, 1, 1000)
	require.ErrorAs(t, err, &damage)
	assert.EqualValues(t, 18, damage.From)
	assert.Less(t, damage.Through, want[0])
	require.NoError(t, o.Settle(orders, 18))
	require.Equal(t, want, readAll(t, o, orders, 1, 1000))
	require.NoError(t, o.Close())
	o = open(t, cfg)
	require.Equal(t, want, readAll(t, o, orders, 1, 1000))
	require.NoError(t, o.Settle(orders, want[9])) // all that the damaged segment holds
	require.NoError(t, o.Close())
	require.NoError(t, open(t, cfg).Close())
	assert.NotContains(t, d.names(), damaged)
}

func TestIndex_DoesNotGrowWithMessages(t *testing.T) {
	cfg := newMemDisk(1).config()
	cfg.SegmentBytes = 1 << 20
	o := open(t, cfg)
	for n := uint64(1); n <= 100_000; n += 1000 {
		fill(t, o, orders, n, n+999, 1000)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	s := o.index.streams[orders]
	assert.LessOrEqual(t, len(s.extents), len(o.index.segments))
	assert.Empty(t, s.settled.ranges)
	for _, f := range o.index.segments {
		assert.LessOrEqual(t, len(f.extents), 1)
	}
}

// TestReclaim_SavesWhatIsSettledFirst cuts the power right after segments were removed whose messages were settled out
// of order, which no append has saved. Such messages may come back, but must not be reported as damage.
func TestReclaim_SavesWhatIsSettledFirst(t *testing.T) {
	d := newMemDisk(1)
	synctest.Test(t, func(t *testing.T) {
		o := open(t, d.config())
		fill(t, o, orders, 1, 1000, 10)
		segments := len(d.names())
		require.NoError(t, o.Settle(orders, 0, store.Range{First: 300, Last: 800}))
		synctest.Wait()
		require.Less(t, len(d.names()), segments)
		crashed := d.restart(1)
		require.NoError(t, o.Close())
		o = open(t, crashed.config())
		require.Equal(t, slices.Concat(sequence(1, 299), sequence(801, 1000)), readAll(t, o, orders, 1, 500))
		require.NoError(t, o.Close())
	})
}

func TestIndex_SavesOnlyWhatIsDurable(t *testing.T) {
	ix := newIndex()
	s := ix.addStream(3, orders)
	s.defined, s.durable, s.next = true, 5, 9
	ix.addStream(4, events) // not in the log yet
	again := newIndex()
	last, ok := again.decodeStreams(ix.encodeStreams(7))
	require.True(t, ok)
	assert.EqualValues(t, 7, last)
	assert.EqualValues(t, 5, again.nextStream, "the number of the other stream is taken")
	require.Len(t, again.byID, 1)
	assert.EqualValues(t, 5, again.byID[3].next)
	assert.EqualValues(t, 5, again.byID[3].durable)
}
