package outbox

import (
	"bytes"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/store"
)

// offsetOf finds a message in a segment.
func offsetOf(t *testing.T, d *memDisk, m []byte) (name string, offset int) {
	t.Helper()
	for _, name := range d.names() {
		if i := bytes.Index(d.files[name].durable, m); i >= 0 {
			return name, i
		}
	}
	t.Fatalf("%s is in no segment", m)
	return "", 0
}

func TestDamage_InASealedSegmentIsReportedByRead(t *testing.T) {
	d := newMemDisk(1)
	cfg := d.config()
	cfg.CacheBytes = -1
	o := open(t, cfg)
	fill(t, o, orders, 1, 1000, 10)
	require.NoError(t, o.Close())
	name, offset := offsetOf(t, d, message(101))
	d.damage(t, name, offset)

	o = open(t, cfg)
	var got []uint64
	b, err := o.Read(orders, 1, 1000)
	for ; err == nil && len(b.Messages) > 0; b, err = o.Read(orders, b.Next(), 1000) {
		got = append(got, sequence(b.First, b.Next()-1)...)
	}
	require.Equal(t, sequence(1, 100), got, "all before the damage")
	var damage *store.CorruptError
	require.ErrorAs(t, err, &damage)
	assert.Equal(t, name, damage.File)
	assert.NotZero(t, damage.Index)
	assert.Equal(t, orders, damage.Key)
	assert.Equal(t, store.Range{First: 101, Last: 110}, store.Range{First: damage.From, Last: damage.Through})
	_, again := o.Read(orders, 101, 1)
	require.ErrorAs(t, again, &damage, "it stays")

	require.NoError(t, o.Settle(orders, 0, store.Range{First: damage.From, Last: damage.Through}))
	require.Equal(t, sequence(111, 1000), readAll(t, o, orders, 101, 1000))
}

func TestDamage_InTheTailIsReportedByOpen(t *testing.T) {
	// Where in the entry of message 5: its payload, its header, and the engine's frame in front of that, without which
	// the engine sees the end of the log.
	for n := uint64(1); n <= 9; n += 4 { // behind the last of these is one intact entry
		for _, before := range []int{0, entryHeader + 4, entryHeader + 8 + 8} {
			d := newMemDisk(1)
			cfg := d.config()
			cfg.SegmentBytes = 1 << 20
			o := open(t, cfg)
			fill(t, o, orders, 1, 10, 1)
			crashed := d.restart(1) // without Close, which would save where the log ends
			name, offset := offsetOf(t, crashed, message(n))
			crashed.damage(t, name, offset-before)

			_, err := Open(crashed.configWith(cfg))
			var damage *store.CorruptError
			require.ErrorAs(t, err, &damage, "message %d, %d before", n, before)
			assert.Equal(t, name, damage.File)
			assert.Equal(t, n, damage.Index)
		}
	}
}

func TestRecovery_DropsATornTail(t *testing.T) {
	d := newMemDisk(1)
	cfg := d.config()
	cfg.SegmentBytes = 1 << 20
	o := open(t, cfg)
	fill(t, o, orders, 1, 10, 1)
	for _, before := range []int{0, entryHeader + 4, entryHeader + 8 + 8} { // the last leaves an entry that is intact
		crashed := d.restart(1)
		name, offset := offsetOf(t, crashed, message(10))
		crashed.damage(t, name, offset-before) // as if its fsync had not ended
		again := open(t, crashed.configWith(cfg))
		require.Equal(t, sequence(1, 9), readAll(t, again, orders, 1, 100))
		fill(t, again, orders, 10, 20, 1)
	}
}

func TestDamage_LostPartsAreReportedByOpen(t *testing.T) {
	setup := func() *memDisk {
		d := newMemDisk(1)
		o := open(t, d.config())
		fill(t, o, orders, 1, 1000, 10)
		require.NoError(t, o.Close())
		require.Greater(t, len(d.names()), 3)
		return d
	}
	for what, destroy := range map[string]func(*memDisk){
		"first segment":  func(d *memDisk) { delete(d.files, d.names()[0]) },
		"last segment":   func(d *memDisk) { delete(d.files, d.names()[len(d.names())-1]) },
		"end of log":     func(d *memDisk) { f := d.files[d.names()[len(d.names())-1]]; f.current = f.current[:100] },
		"summary":        func(d *memDisk) { delete(d.meta.stable, keySummary(d.meta.state.Segments[0].ID)) },
		"summary's bits": func(d *memDisk) { d.meta.stable[keySummary(d.meta.state.Segments[0].ID)][3] ^= 1 },
		"streams":        func(d *memDisk) { delete(d.meta.stable, keyStreams) },
		"streams' bits":  func(d *memDisk) { d.meta.stable[keyStreams][3] ^= 1 },
		"identity":       func(d *memDisk) { delete(d.meta.stable, keyIdentity) },
		"identity bits":  func(d *memDisk) { d.meta.stable[keyIdentity][20] ^= 1 },
	} {
		d := setup()
		destroy(d)
		_, err := Open(d.config())
		var damage *store.CorruptError
		require.ErrorAs(t, err, &damage, what)
	}
}

// TestDamage_AnOlderMetaStoreIsReportedByOpen: the meta store falls back to the commit before if the newest is damaged.
// Open must not take that for an outbox whose newest segment, or whose streams, never existed.
func TestDamage_AnOlderMetaStoreIsReportedByOpen(t *testing.T) {
	d := newMemDisk(1)
	o := open(t, d.config())
	fill(t, o, orders, 1, 1000, 10)
	killed := d.next(1)
	require.NoError(t, o.Close())
	state := &killed.meta.state
	state.Segments = state.Segments[:len(state.Segments)-1]
	state.NextSegmentID--
	tail := &state.Segments[len(state.Segments)-1]
	tail.SealTime, tail.MaxIndex, tail.IndexStart = time.Time{}, 0, 0
	_, err := Open(killed.config())
	var damage *store.CorruptError
	require.ErrorAs(t, err, &damage)
	t.Log(err)

	o = open(t, d.config()) // and its tail remains empty
	require.NoError(t, o.Close())
	delete(d.meta.stable, keyStreams)
	_, err = Open(d.config())
	require.ErrorAs(t, err, &damage)
	t.Log(err)
}

func TestRecovery_IgnoresForeignEntries(t *testing.T) {
	d := newMemDisk(1)
	cfg := d.config()
	cfg.SegmentBytes = 1 << 20
	o := open(t, cfg)
	// The message is an entry with a later index, but of another outbox.
	entry := append(make([]byte, entryHeader), "payload"...)
	sealEntry(entry, 1000, open(t, newMemDisk(2).config()).seed)
	_, err := o.Append(bg, orders, entry)
	require.NoError(t, err)
	o = open(t, d.restart(1).configWith(cfg))
	assert.EqualValues(t, 1, o.Streams()[0].Pending)
}

func TestDamage_MessagesThatNoSegmentHolds(t *testing.T) {
	cfg := newMemDisk(1).config()
	cfg.CacheBytes = -1
	o := open(t, cfg)
	fill(t, o, orders, 1, 1000, 10)
	o.mu.Lock()
	s := o.index.streams[orders]
	lost := s.extents[2]
	s.detach(lost)
	o.mu.Unlock()
	var damage *store.CorruptError
	_, err := o.Read(orders, lost.first, 1)
	require.ErrorAs(t, err, &damage)
	assert.Equal(t, store.Range{First: lost.first, Last: lost.last}, store.Range{First: damage.From, Last: damage.Through})
}

// TestDamage_AtTheEndOfASegment tells which messages cannot be read, and none that can: those of the next segment, and
// those that are settled.
func TestDamage_AtTheEndOfASegment(t *testing.T) {
	d := newMemDisk(1)
	cfg := d.config()
	cfg.CacheBytes = -1
	o := open(t, cfg)
	fill(t, o, orders, 1, 1000, 10)
	end := o.index.streams[orders].extents[1].last
	name, offset := offsetOf(t, d, message(end))
	d.damage(t, name, offset)
	var damage *store.CorruptError
	lost := func(from uint64) store.Range {
		_, err := o.Read(orders, from, 1<<20)
		require.ErrorAs(t, err, &damage)
		require.Equal(t, name, damage.File)
		return store.Range{First: damage.From, Last: damage.Through}
	}
	require.Equal(t, store.Range{First: end - 9, Last: end}, lost(end-9))
	index := damage.Index
	require.NoError(t, o.Settle(orders, 0, store.Range{First: end - 3, Last: end - 2}))
	require.Equal(t, store.Range{First: end - 9, Last: end - 4}, lost(end-9))
	require.Equal(t, store.Range{First: end - 1, Last: end}, lost(end-3))
	require.Equal(t, index, damage.Index)

	b, err := o.Read(orders, end-19, 1<<20)
	require.NoError(t, err)
	require.Equal(t, end-9, b.Next(), "all before the damage")
	require.Equal(t, store.Range{First: end - 9, Last: end - 4}, lost(b.Next()))
	require.Equal(t, sequence(end+1, 1000), readAll(t, o, orders, end+1, 1<<20))
}

// TestDamage_EntriesThatLackMessages are intact, and have less than the index says.
func TestDamage_EntriesThatLackMessages(t *testing.T) {
	cfg := newMemDisk(1).config()
	cfg.CacheBytes = -1
	o := open(t, cfg)
	fill(t, o, orders, 1, 10, 5)
	s := o.index.streams[orders]
	s.extents[0].last, s.next, s.durable = 12, 13, 13
	require.Equal(t, sequence(1, 10), readBatch(t, o, orders, 1))
	_, err := o.Read(orders, 11, 100)
	var damage *store.CorruptError
	require.ErrorAs(t, err, &damage)
	require.Equal(t, "gap after an entry", damage.Reason)
	require.Equal(t, store.Range{First: 11, Last: 12}, store.Range{First: damage.From, Last: damage.Through})
}

func readBatch(t *testing.T, o *Outbox, k store.Key, from uint64) []uint64 {
	t.Helper()
	b, err := o.Read(k, from, 1<<20)
	require.NoError(t, err)
	return sequence(b.First, b.Next()-1)
}
