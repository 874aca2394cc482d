package receiver

import (
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/session"
	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
	"github.com/buffstreams/watermill-buffstreams/store"
)

// failingStore fails its first write, when it is let.
type failingStore struct {
	remembered
	fail  chan error
	saves atomic.Int32
}

func (f *failingStore) Save(map[store.StreamID]store.StreamState) error {
	if f.saves.Add(1) == 1 {
		return <-f.fail
	}
	return nil
}

// A batch has gathered while a write is under way that fails. The next write would succeed, but what the store holds is
// not known: nothing is acked any more, neither of that batch nor of a later one.
func TestCommitter_WritesNothingAfterAFailedWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := errors.New("disk")
		f := &failingStore{fail: make(chan error)}
		c := newCommitter(f, testkit.NewLog())
		s := &stream{in: session.RestoreInbound(nil, 1)}
		results := make(chan error, 2)
		for range 2 {
			go func() { results <- c.commit(s) }() // ends with commit
			synctest.Wait()
		}
		f.fail <- broken
		require.ErrorIs(t, <-results, broken)
		require.ErrorIs(t, <-results, broken)
		require.ErrorIs(t, c.commit(s), broken)
		require.EqualValues(t, 1, f.saves.Load())
		c.close()
		require.ErrorIs(t, c.commit(s), broken)
	})
}
