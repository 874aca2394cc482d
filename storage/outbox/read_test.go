package outbox

import (
	"errors"
	"testing"

	"github.com/hashicorp/raft-wal/types"
	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/hooks"
	"github.com/buffstreams/watermill-buffstreams/store"
)

// TestRead_GoesOnWhereItStopped: a reader that takes one message at a time does not search the segment for each.
func TestRead_GoesOnWhereItStopped(t *testing.T) {
	d := newMemDisk(1)
	cfg := d.config()
	cfg.SegmentBytes, cfg.CacheBytes = 1<<20, -1
	o := open(t, cfg)
	const messages = 300
	fill(t, o, orders, 1, messages, 1)
	before := d.reads
	require.Equal(t, sequence(1, messages), readAll(t, o, orders, 1, 1))
	require.LessOrEqual(t, d.reads-before, 5*messages)
	require.Equal(t, sequence(200, messages), readAll(t, o, orders, 200, 1), "back, and on from there")
}

// TestRead_FillsABatchExactly returns as many messages as fit, of the cache and of the disk.
func TestRead_FillsABatchExactly(t *testing.T) {
	for _, cache := range []int{0, -1} {
		cfg := newMemDisk(1).config()
		cfg.CacheBytes = cache
		o := open(t, cfg)
		fill(t, o, orders, 1, 9, 3) // of nine bytes each
		for maxBytes, want := range map[int]int{-1: 1, 0: 1, 8: 1, 9: 1, 17: 1, 18: 2, 35: 3, 36: 4, 80: 8, 81: 9} {
			b, err := o.Read(orders, 1, maxBytes)
			require.NoError(t, err)
			require.Len(t, b.Messages, want, "%d bytes", maxBytes)
		}
		require.Equal(t, sequence(3, 9), readAll(t, o, orders, 3, 20))
		for from, first := range map[uint64]uint64{0: 1, 9: 9, 10: 10, 11: 11} {
			b, err := o.Read(orders, from, 1)
			require.NoError(t, err)
			require.Equal(t, first, b.First)
		}
	}
}

// TestRead_BatchesStayValid while others are read with the same buffers.
func TestRead_BatchesStayValid(t *testing.T) {
	cfg := newMemDisk(1).config()
	cfg.CacheBytes = -1
	o := open(t, cfg)
	fill(t, o, orders, 1, 600, 7)
	var all [][]byte
	for from := uint64(1); from <= 600; from = uint64(len(all)) + 1 {
		b, err := o.Read(orders, from, 50)
		require.NoError(t, err)
		all = append(all, b.Messages...)
	}
	for n, m := range all {
		require.Equal(t, string(message(uint64(n)+1)), string(m))
	}
}

// TestRead_FromASegmentThatIsRemovedMeanwhile looks into the index again.
func TestRead_FromASegmentThatIsRemovedMeanwhile(t *testing.T) {
	cfg := newMemDisk(1).config()
	cfg.CacheBytes = -1
	o := reopen(t, fillOnly(t, cfg), cfg)
	h := &o.index.streams[orders].extents[1].segment.handle
	first := o.index.streams[orders].extents[1].first
	reopened, opens := h.open, 0
	h.open = func() (types.SegmentReader, error) {
		if opens++; opens == 1 {
			return nil, errSegmentRemoved
		}
		return reopened()
	}
	require.Equal(t, sequence(first, 1000), readAll(t, o, orders, first, 1<<20))
	require.Equal(t, 2, opens)
}

func fillOnly(t *testing.T, cfg Config) *Outbox {
	t.Helper()
	o := open(t, cfg)
	fill(t, o, orders, 1, 1000, 10)
	return o
}

// TestRead_FromTheDiskCountsAsSent as one from the cache does.
func TestRead_FromTheDiskCountsAsSent(t *testing.T) {
	cfg := newMemDisk(1).config()
	cfg.CacheBytes = -1
	o := open(t, cfg)
	fill(t, o, orders, 1, 10, 5)
	b, err := o.Read(orders, 1, 30)
	require.NoError(t, err)
	require.EqualValues(t, 4, b.Next())
	require.Equal(t, b.Next(), o.Streams()[0].Sent)
	_, err = o.Read(orders, 11, 30)
	require.NoError(t, err)
	require.EqualValues(t, 4, o.Streams()[0].Sent, "nothing was returned")
}

// readCounter is a hook that notes how much Open has read.
type readCounter struct {
	d     *memDisk
	reads int
}

func (c *readCounter) OnOutboxRecovered(hooks.OutboxRecovered) { c.reads = c.d.reads }

// TestOpen_ReportsEveryFailedRead: what Open could not read is not there for it, and nothing may depend on that.
func TestOpen_ReportsEveryFailedRead(t *testing.T) {
	d := newMemDisk(1)
	o := open(t, d.config())
	fill(t, o, orders, 1, 200, 10)
	require.NoError(t, o.SetPlace(bg, orders, store.Place{Address: "h:1", Tenure: 1}))
	killed := d.next(1)
	require.NoError(t, o.Close())
	counter := &readCounter{d: killed.next(1)}
	cfg := counter.d.config()
	cfg.Hooks = []hooks.Hook{counter}
	require.NoError(t, open(t, cfg).Close())
	require.Greater(t, counter.reads, 10)
	for op := 1; op <= counter.reads; op++ {
		d := killed.next(1)
		d.fault = fault{op: op, reading: true, err: ioError}
		_, err := Open(d.config())
		require.ErrorIs(t, err, ioError, "read %d", op)
		var damage *store.CorruptError
		if !errors.As(err, &damage) {
			require.ErrorContains(t, err, "outbox: open mem: ")
		}
		require.Zero(t, d.open, "read %d: files are open", op)
		d.fault = fault{}
		o = open(t, d.config())
		require.Equal(t, sequence(1, 200), readAll(t, o, orders, 1, 1000))
		require.NoError(t, o.Close())
	}
}
