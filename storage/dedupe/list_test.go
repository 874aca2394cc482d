package dedupe

import (
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/store"
)

func TestList_HasEveryRecord(t *testing.T) {
	s, err := Open(filepath.Join(t.TempDir(), "f"))
	require.NoError(t, err)
	want := map[store.StreamID]store.StreamState{}
	for i := range 3 {
		id := store.StreamID{Publisher: [16]byte{byte(i % 2), 1}, Stream: uint64(i), Topic: []string{"", "a", "b/c"}[i]}
		want[id] = store.StreamState{Epoch: uint64(i + 1), Secret: [16]byte{7}, Settled: []store.Range{{First: 1, Last: uint64(i + 1)}}}
	}
	require.NoError(t, s.Save(want))
	got := map[store.StreamID]store.StreamState{}
	var before byte
	require.NoError(t, s.List(func(r Record) error {
		require.GreaterOrEqual(t, r.ID.Publisher[0], before, "those of a publisher are side by side")
		before = r.ID.Publisher[0]
		require.WithinDuration(t, time.Now(), r.Saved, time.Minute)
		got[r.ID] = r.State
		return nil
	}))
	require.Equal(t, want, got)

	enough := errors.New("enough")
	calls := 0
	require.Equal(t, enough, s.List(func(Record) error { calls++; return enough }))
	require.Equal(t, 1, calls)
	require.NoError(t, s.Close())
	require.Error(t, s.List(func(Record) error { return nil }))
}
