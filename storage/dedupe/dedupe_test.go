package dedupe

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"

	"github.com/buffstreams/watermill-buffstreams/storage/internal/boltfile"
	"github.com/buffstreams/watermill-buffstreams/store"
)

func TestStore_KeepsItsState(t *testing.T) {
	path := filepath.Join(t.TempDir(), "dedupe")
	s, err := Open(path)
	require.NoError(t, err)
	a := store.StreamID{Publisher: [16]byte{1}, Stream: 1, Topic: "orders"}
	b := store.StreamID{Publisher: [16]byte{1}, Stream: 1, Topic: "orders2"}
	states := map[store.StreamID]store.StreamState{
		a: {
			Epoch: 3, Secret: [16]byte{9}, Incarnation: [16]byte{7},
			Settled: []store.Range{{First: 1, Last: 1000}, {First: 1002, Last: 1002}, {First: 1 << 40, Last: 1 << 41}},
			Groups:  map[string][]store.Range{"fast": {{First: 1003, Last: 1010}, {First: 1012, Last: 1012}}, "": {{First: 1, Last: 1}}},
		},
		b: {Epoch: 1},
	}
	require.NoError(t, s.Save(states))
	_, err = Open(path)
	require.ErrorIs(t, err, ErrLocked)
	require.NoError(t, s.Close())

	s, err = Open(path)
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	for id, want := range states {
		state, ok, err := s.Load(id)
		require.NoError(t, err)
		require.True(t, ok)
		require.Equal(t, want, state)
	}
	require.NoError(t, s.Forget(a))
	_, ok, err := s.Load(a)
	require.NoError(t, err)
	require.False(t, ok)
}

// TestStore_LoadReportsARecordThatRottedSinceOpen: an unknown stream would have its messages delivered again.
func TestStore_LoadReportsARecordThatRottedSinceOpen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "dedupe")
	s, err := Open(path)
	require.NoError(t, err)
	id := store.StreamID{Publisher: [16]byte{1}, Stream: 1, Topic: "orders"}
	state := store.StreamState{Epoch: 3, Secret: [16]byte([]byte("0123456789abcdef"))}
	require.NoError(t, s.Save(map[store.StreamID]store.StreamState{id: state}))
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	require.NoError(t, err)
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	at := bytes.Index(data, state.Secret[:])
	require.Positive(t, at)
	_, err = f.WriteAt([]byte{'!'}, int64(at)) // the map shows it
	require.NoError(t, err)
	require.NoError(t, f.Close())
	_, ok, err := s.Load(id)
	var corrupt *CorruptError
	require.ErrorAs(t, err, &corrupt)
	require.Equal(t, path, corrupt.Path)
	require.False(t, ok)
	corrupt = nil
	require.ErrorAs(t, s.List(func(Record) error { return nil }), &corrupt)
	require.Equal(t, path, corrupt.Path)
	_ = s.Close()
	_, err = Open(path)
	require.ErrorAs(t, err, &corrupt)
}

// TestStore_OpenReportsARecordThatIsMissing takes a record out, or an older one in, without the totals: each page is
// intact, and so is each record.
func TestStore_OpenReportsARecordThatIsMissing(t *testing.T) {
	id := store.StreamID{Publisher: [16]byte{1}, Stream: 1, Topic: "orders"}
	k := key(id)
	for what, change := range map[string]func(*bolt.Bucket) error{
		"missing": func(b *bolt.Bucket) error { return b.Delete(k) },
		"older":   func(b *bolt.Bucket) error { return b.Put(k, encode(k, record{state: store.StreamState{Epoch: 2}})) },
	} {
		path := filepath.Join(t.TempDir(), "dedupe")
		s, err := Open(path)
		require.NoError(t, err)
		require.NoError(t, s.Save(map[store.StreamID]store.StreamState{id: {Epoch: 3}, {Stream: 2}: {Epoch: 1}}))
		require.NoError(t, s.db.Update(func(tx *bolt.Tx) error { return change(tx.Bucket(streamsBucket)) }))
		require.NoError(t, s.Close())
		_, err = Open(path)
		var corrupt *CorruptError
		require.ErrorAs(t, err, &corrupt, what)
	}
}

// TestStore_CallsFailAfterClose: a listener that outlives the store must not take a stream for unknown, nor messages
// for saved.
func TestStore_CallsFailAfterClose(t *testing.T) {
	s, err := Open(filepath.Join(t.TempDir(), "dedupe"))
	require.NoError(t, err)
	require.NoError(t, s.Close())
	require.NoError(t, s.Close())
	_, _, err = s.Load(store.StreamID{})
	require.Error(t, err)
	require.Error(t, s.Save(map[store.StreamID]store.StreamState{{}: {}}))
	require.Error(t, s.Forget(store.StreamID{}))
}

func TestRecord_ReportsTruncation(t *testing.T) {
	k := []byte("key")
	full := encode(k, record{state: store.StreamState{
		Epoch: 300, Settled: []store.Range{{First: 200, Last: 1000}}, Groups: map[string][]store.Range{"g": {{First: 1, Last: 1}}},
	}, saved: 1})
	const format1 = 2 + 16 + 2 + 2 // it ends there
	for n := range full {
		_, ok := decode(k, full[:n])
		require.False(t, ok, "prefix of %d", n)
		if n < len(full)-4 {
			_, ok = decode(k, seal(k, full[:n:n]))
			complete := n == 18 || n == format1 || n == format1+1+1+16 // without ranges, of format 1, without groups
			require.Equal(t, complete, ok, "prefix of %d, with a checksum", n)
		}
	}
	_, ok := decode([]byte("kez"), full)
	require.False(t, ok, "of another stream")
}

// recordsOf is the number of records in a store.
func recordsOf(t *testing.T, s *Store) (n int) {
	t.Helper()
	require.NoError(t, s.db.View(func(tx *bolt.Tx) error {
		n = tx.Bucket(streamsBucket).Stats().KeyN
		return nil
	}))
	return n
}

// TestStore_ForgetsIdleStreams: when it is opened, and while it is open. What is saved now and then is not idle.
func TestStore_ForgetsIdleStreams(t *testing.T) {
	path, now := filepath.Join(t.TempDir(), "dedupe"), time.Unix(1_000_000, 0)
	cfg := Config{Path: path, ForgetAfter: time.Hour}
	clock := func() time.Time { return now }
	s, err := open(cfg, clock)
	require.NoError(t, err)
	save := func(streams ...uint64) {
		states := map[store.StreamID]store.StreamState{}
		for _, n := range streams {
			states[store.StreamID{Stream: n}] = store.StreamState{Epoch: 1}
		}
		require.NoError(t, s.Save(states))
	}
	known := func(n uint64) bool {
		_, ok, err := s.Load(store.StreamID{Stream: n})
		require.NoError(t, err)
		return ok
	}
	save(1, 2, 3)
	now = now.Add(40 * time.Minute)
	save(1)
	require.Equal(t, 3, recordsOf(t, s))
	now = now.Add(20*time.Minute - time.Second)
	require.NoError(t, s.Close())
	s, err = open(cfg, clock)
	require.NoError(t, err)
	require.Equal(t, 3, recordsOf(t, s))
	now = now.Add(time.Second)
	require.NoError(t, s.Close())
	s, err = open(cfg, clock)
	require.NoError(t, err)
	require.Equal(t, []bool{true, false, false}, []bool{known(1), known(2), known(3)})

	save(4)
	now = now.Add(59 * time.Minute)
	save(5)
	require.Equal(t, []bool{false, true, true}, []bool{known(1), known(4), known(5)})
	require.Equal(t, 2, recordsOf(t, s))
	require.NoError(t, s.Close())

	now = now.Add(1000 * time.Hour)
	s, err = open(Config{Path: path, ForgetAfter: -1}, clock)
	require.NoError(t, err)
	now = now.Add(1000 * time.Hour)
	save(6)
	require.Equal(t, 3, recordsOf(t, s), "it keeps all")
	require.NoError(t, s.Close())
}

// TestStore_LooksForIdleStreamsInTime: four times in ForgetAfter, but neither all the time nor less than once a day.
func TestStore_LooksForIdleStreamsInTime(t *testing.T) {
	for after, want := range map[time.Duration]time.Duration{
		-1: 24 * time.Hour, 1: time.Second, 4 * time.Second: time.Second, time.Hour: 15 * time.Minute,
		96 * time.Hour: 24 * time.Hour, DefaultForgetAfter: 24 * time.Hour,
	} {
		require.Equal(t, want, (&Store{cfg: Config{ForgetAfter: after}}).sweepAfter(), after)
	}
}

// TestStore_RefusesOtherFormats without calling them damage: a later version can read them.
func TestStore_RefusesOtherFormats(t *testing.T) {
	for _, format := range []byte{0, formatVersion + 1} {
		path := filepath.Join(t.TempDir(), "dedupe")
		s, err := Open(path)
		require.NoError(t, err)
		require.NoError(t, s.db.Update(func(tx *bolt.Tx) error {
			return tx.Bucket(aboutBucket).Put(totalsKey, seal(totalsKey, append([]byte{format}, make([]byte, 16)...)))
		}))
		require.NoError(t, s.Close())
		_, err = Open(path)
		require.ErrorContains(t, err, "format")
		var corrupt *CorruptError
		require.NotErrorAs(t, err, &corrupt)
	}
}

// TestStore_ReadsFormat1: records without a time are as old as the first Open that sees them.
func TestStore_ReadsFormat1(t *testing.T) {
	path, now := filepath.Join(t.TempDir(), "dedupe"), time.Unix(1_000_000, 0)
	cfg := Config{Path: path, ForgetAfter: time.Hour}
	clock := func() time.Time { return now }
	id := store.StreamID{Publisher: [16]byte{1}, Stream: 1, Topic: "orders"}
	s, err := open(cfg, clock)
	require.NoError(t, err)
	k := key(id)
	v := append([]byte{3}, make([]byte, 16)...) // epoch and secret
	v = seal(k, append(v, 1, 9, 2, 0))          // 1 to 10 and 12
	require.NoError(t, s.db.Update(func(tx *bolt.Tx) error {
		require.NoError(t, tx.Bucket(streamsBucket).Put(k, v))
		var sum totals
		sum.add(k, v)
		about := binary.BigEndian.AppendUint64([]byte{1}, sum.count)
		about = binary.BigEndian.AppendUint64(about, sum.sum)
		return tx.Bucket(aboutBucket).Put(totalsKey, seal(totalsKey, about))
	}))
	require.NoError(t, s.Close())
	for range 2 {
		s, err = open(cfg, clock)
		require.NoError(t, err)
		state, ok, err := s.Load(id)
		require.NoError(t, err)
		require.True(t, ok)
		require.Equal(t, store.StreamState{Epoch: 3, Settled: []store.Range{{First: 1, Last: 10}, {First: 12, Last: 12}}}, state)
		require.NoError(t, s.Close())
		now = now.Add(59 * time.Minute)
	}
	now = now.Add(time.Minute)
	s, err = open(cfg, clock)
	require.NoError(t, err)
	require.Zero(t, recordsOf(t, s))
	require.NoError(t, s.Close())
}

func FuzzDecode(f *testing.F) {
	k := []byte("key")
	f.Add(encode(k, record{state: store.StreamState{Epoch: 1, Settled: []store.Range{{First: 1, Last: 5}}}, saved: 5}))
	f.Add(encode(k, record{state: store.StreamState{Groups: map[string][]store.Range{"": {{First: 1, Last: 5}}, "h": nil}}}))
	f.Fuzz(func(t *testing.T, v []byte) {
		decode(k, v)
		if state, ok := decode(k, seal(k, v)); ok {
			again, ok := decode(k, encode(k, state))
			require.True(t, ok)
			require.Equal(t, state, again)
		}
	})
}

// TestCorruptError_SaysWhatToDo, and why.
func TestCorruptError_SaysWhatToDo(t *testing.T) {
	path := filepath.Join(t.TempDir(), "dedupe")
	require.NoError(t, os.WriteFile(path, []byte("something else"), 0o600))
	_, err := Open(path)
	var damage *boltfile.DamageError
	require.ErrorAs(t, err, &damage)
	require.EqualError(t, err, "dedupe: "+path+" is damaged: the B-tree: "+damage.Error()+
		" (if you move the file away, a new one is created, and messages that were handled can be delivered again)")
	require.EqualError(t, damaged("the totals"), "dedupe:  is damaged: the totals"+
		" (if you move the file away, a new one is created, and messages that were handled can be delivered again)")
}
