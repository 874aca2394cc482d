package dedupe

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

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
