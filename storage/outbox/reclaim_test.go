package outbox

import (
	"testing"

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
	for round := uint64(0); round < 400; round++ {
		// Ten messages that nobody takes among two hundred that are delivered.
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

func TestRelocation_KeepsGapsAndSequences(t *testing.T) {
	d := newMemDisk(1)
	cfg := d.config()
	cfg.CacheBytes = -1
	o := open(t, cfg)
	var want []uint64
	last := uint64(0)
	for n := uint64(1); n <= 40000; n += 40 {
		fill(t, o, orders, n, n+39, 4)
		last = n + 39
		// One in forty stays.
		require.NoError(t, o.Settle(orders, 0, store.Range{First: n, Last: n + 16}, store.Range{First: n + 18, Last: n + 39}))
		want = append(want, n+17)
	}
	assert.LessOrEqual(t, d.bytes(), len(want)*2*(MessageOverhead+15)+8*cfg.SegmentBytes)
	for range 3 {
		require.Equal(t, want, readAll(t, o, orders, 1, 500))
		require.NoError(t, o.Close())
		o = open(t, cfg)
	}
	fill(t, o, orders, last+1, last+1, 1)
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
