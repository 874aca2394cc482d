package dedupe

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"

	"github.com/buffstreams/watermill-buffstreams/pool"
)

func TestStateSurvives(t *testing.T) {
	path := filepath.Join(t.TempDir(), "dedupe")
	s, err := Open(path)
	require.NoError(t, err)
	a := pool.StreamID{Publisher: [16]byte{1}, Stream: 1, Topic: "orders"}
	b := pool.StreamID{Publisher: [16]byte{1}, Stream: 1, Topic: "orders2"}
	states := map[pool.StreamID]pool.StreamState{
		a: {Epoch: 3, Secret: [16]byte{9}, Settled: []pool.Range{{First: 1, Last: 1000}, {First: 1002, Last: 1002}, {First: 1 << 40, Last: 1 << 41}}},
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

func TestEveryTruncatedRecordIsReported(t *testing.T) {
	full := encode(pool.StreamState{Epoch: 300, Settled: []pool.Range{{First: 200, Last: 1000}}})
	for n := range full {
		state, ok := decode(full[:n])
		if ok {
			require.Empty(t, state.Settled, "prefix of %d", n) // the record of a stream with nothing settled
		}
	}
	s, err := Open(filepath.Join(t.TempDir(), "dedupe"))
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	id := pool.StreamID{Stream: 7}
	require.NoError(t, s.db.Update(func(tx *bolt.Tx) error { return tx.Bucket(bucket).Put(key(id), []byte{1, 2}) }))
	_, _, err = s.Load(id)
	var corrupt *CorruptError
	require.ErrorAs(t, err, &corrupt)
}

func FuzzDecode(f *testing.F) {
	f.Add(encode(pool.StreamState{Epoch: 1, Settled: []pool.Range{{First: 1, Last: 5}}}))
	f.Fuzz(func(t *testing.T, v []byte) {
		if state, ok := decode(v); ok {
			again, ok := decode(encode(state))
			require.True(t, ok)
			require.Equal(t, state, again)
		}
	})
}
