package dedupe

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"

	"github.com/buffstreams/watermill-buffstreams/store"
)

func TestStore_KeepsItsState(t *testing.T) {
	path := filepath.Join(t.TempDir(), "dedupe")
	s, err := Open(path)
	require.NoError(t, err)
	a := store.StreamID{Publisher: [16]byte{1}, Stream: 1, Topic: "orders"}
	b := store.StreamID{Publisher: [16]byte{1}, Stream: 1, Topic: "orders2"}
	states := map[store.StreamID]store.StreamState{
		a: {Epoch: 3, Secret: [16]byte{9}, Settled: []store.Range{{First: 1, Last: 1000}, {First: 1002, Last: 1002}, {First: 1 << 40, Last: 1 << 41}}},
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
		"older":   func(b *bolt.Bucket) error { return b.Put(k, encode(k, store.StreamState{Epoch: 2})) },
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
	full := encode(k, store.StreamState{Epoch: 300, Settled: []store.Range{{First: 200, Last: 1000}}})
	for n := range full {
		_, ok := decode(k, full[:n])
		require.False(t, ok, "prefix of %d", n)
		_, ok = decode(k, seal(k, full[:n:n]))
		require.False(t, ok && n < 18, "prefix of %d, with a checksum", n)
	}
	_, ok := decode([]byte("kez"), full)
	require.False(t, ok, "of another stream")
}

func FuzzDecode(f *testing.F) {
	k := []byte("key")
	f.Add(encode(k, store.StreamState{Epoch: 1, Settled: []store.Range{{First: 1, Last: 5}}}))
	f.Fuzz(func(t *testing.T, v []byte) {
		decode(k, v)
		if state, ok := decode(k, seal(k, v)); ok {
			again, ok := decode(k, encode(k, state))
			require.True(t, ok)
			require.Equal(t, state, again)
		}
	})
}
