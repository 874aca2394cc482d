package outbox

import (
	"testing"
	"testing/synctest"

	"github.com/hashicorp/raft-wal/types"
	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/store"
)

// sparse fills many segments, and settles the first message of each as well as most others, with one call: the older a
// segment is, the fewer of its messages stay pending. It returns those that do.
func sparse(t *testing.T, o *Outbox) (pending []uint64) {
	t.Helper()
	const last = 12000
	var settled []store.Range
	next := uint64(1)
	for n := uint64(1000); n <= last; n += 60 - n/300 {
		pending = append(pending, n)
		settled = append(settled, store.Range{First: next, Last: n - 1})
		next = n + 1
	}
	fill(t, o, orders, 1, last, 40)
	require.NoError(t, o.Settle(orders, 0, append(settled, store.Range{First: next, Last: last})...))
	return pending
}

// requireOnce requires that exactly the pending messages can be read, each once, and that the outbox counts each once.
func requireOnce(t *testing.T, o *Outbox, pending []uint64) {
	t.Helper()
	checkIndex(t, o)
	require.Equal(t, pending, readAll(t, o, orders, 1, 1<<20))
	s, bytes := o.Stats(), int64(0)
	for _, n := range pending {
		bytes += cost(payloadSize([][]byte{message(n)}), 1)
	}
	require.EqualValues(t, len(pending), s.Pending)
	require.InDelta(t, bytes, s.Bytes, float64(len(pending)), "an estimate, which is off by less than a byte each")
}

// TestRelocation_GoesOnByItself settles once, and calls nothing after that.
func TestRelocation_GoesOnByItself(t *testing.T) {
	d := newMemDisk(1)
	cfg := d.config()
	cfg.CacheBytes = -1
	synctest.Test(t, func(t *testing.T) {
		o := open(t, cfg)
		pending := sparse(t, o)
		synctest.Wait()
		require.LessOrEqual(t, len(d.names())*cfg.SegmentBytes, 2*int(o.Stats().Bytes)+(spareSegments+1)*cfg.SegmentBytes)
		extents := o.index.streams[orders].extents
		require.NotZero(t, extents[0].origin, "it was copied")
		require.Zero(t, extents[len(extents)-3].origin, "segments with more pending stay where they are")
		requireOnce(t, o, pending)
		require.NoError(t, o.Close())
	})
}

// removalMeta is a meta store whose power fails when it is to commit the first manifest without a segment of which a
// sealed one, which stays, has copies.
type removalMeta struct {
	*memDisk
	source, sealed uint64 // the segment to be removed, and one that has copies of it; 0: there was none yet
}

func (m *removalMeta) CommitState(next types.PersistentState) error {
	m.mu.Lock()
	removed := map[uint64]bool{}
	for _, s := range m.meta.state.Segments {
		removed[s.ID] = true
	}
	for _, s := range next.Segments {
		delete(removed, s.ID)
	}
	for _, s := range next.Segments {
		for _, x := range m.extents(s.ID) {
			if removed[x.origin.segment] {
				m.source, m.sealed, m.cut = x.origin.segment, s.ID, true
			}
		}
	}
	m.mu.Unlock()
	return m.memDisk.CommitState(next)
}

// extents returns what the summary of a segment has, if it is sealed.
func (m *removalMeta) extents(segment uint64) []*extent {
	b := m.meta.stable[keySummary(segment)]
	if b == nil {
		return nil
	}
	ix, f := newIndex(), &segmentFile{}
	ix.addStream(1, orders)
	ix.decodeSummary(f, b[:len(b)-4])
	return f.extents
}

// TestRelocation_CopiesOfACrashDoNotComeBack cuts the power when all copies of a relocation are durable, some of them
// in a segment that was sealed since, and the manifest without their source is not. The next process relocates the
// source again. From then on only what that process has saved tells that the first copies do not count.
func TestRelocation_CopiesOfACrashDoNotComeBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newMemDisk(1)
		meta := &removalMeta{memDisk: d}
		cfg := d.config()
		cfg.CacheBytes = -1
		cfg.open = func(string) (storage, error) { return storage{fs: diskFS{d}, meta: meta}, nil }
		o := open(t, cfg)
		pending := sparse(t, o)
		synctest.Wait()
		require.ErrorIs(t, o.Close(), errPowerCut)
		require.NotZero(t, meta.source, "a relocation has filled a segment")

		cfg = d.restart(1).configWith(cfg)
		o = open(t, cfg)
		synctest.Wait()
		requireOnce(t, o, pending)
		require.NotContains(t, o.index.segments, meta.source, "it is relocated again")
		require.Contains(t, o.index.segments, meta.sealed, "it has copies of others too")
		o = reopen(t, o, cfg)
		requireOnce(t, o, pending)
		require.NoError(t, o.Close())
	})
}
