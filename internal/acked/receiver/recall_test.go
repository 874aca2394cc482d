package receiver

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/session"
	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
	"github.com/buffstreams/watermill-buffstreams/internal/wire"
	"github.com/buffstreams/watermill-buffstreams/store"
)

// slowStore answers the first Load late: with what it knew when it was asked.
type slowStore struct {
	*memoryStore
	asked atomic.Bool
	late  chan error // what the first Load fails with
}

func (s *slowStore) Load(id store.StreamID) (state store.StreamState, known bool, err error) {
	state, known, _ = s.memoryStore.Load(id)
	if !s.asked.Swap(true) {
		err = <-s.late
	}
	return state, known, err
}

// A connection is lost while the DedupeStore is asked for its stream. On another one the stream begins, settles messages,
// and is forgotten; then the store answers the first Open, with less. The stream that this one begins must not have them
// handled again.
func TestReceiver_AsksTheStoreAgainForAStreamThatHasLivedMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &slowStore{memoryStore: newMemoryStore(), late: make(chan error)}
		r := newReceiver(complete(Config{Dedupe: m}))
		r.committer = newCommitter(m, testkit.NewLog())
		defer r.committer.close()
		var late *stream
		var opened sync.WaitGroup
		opened.Go(func() { late, _, _ = r.open(openOf(1), "") })
		synctest.Wait()
		s, _, refused := r.open(openOf(1), "")
		require.Nil(t, refused)
		s.Settled(1, 2)
		s.opens = 0 // it was attached, and detached
		require.True(t, r.removeUnused(s))
		m.late <- nil
		opened.Wait()
		require.Equal(t, []store.Range{{First: 1, Last: 2}}, late.in.Settled(nil))
		require.Empty(t, r.recalls)
	})
}

// An Open that began no stream makes no other stale: a peer that is refused again and again cannot hold up the owner.
func TestReceiver_ARefusedOpenMakesNoOtherStale(t *testing.T) {
	r := newReceiver(complete(Config{Dedupe: newMemoryStore()}))
	o := openOf(1)
	_, _, refused := r.open(o, "") // the publisher has a stream
	require.Nil(t, refused)
	o.Stream, o.Handle = 2, 2
	id := store.StreamID{Publisher: [16]byte(o.Publisher), Stream: o.Stream, Topic: o.Topic}
	memory, err := r.recall(id)
	require.NoError(t, err)
	stranger := openOf(1)
	stranger.Stream, stranger.Secret = o.Stream, []byte("another secret ..")[:16]
	_, _, refused = r.open(stranger, "")
	require.Equal(t, wire.Code_CODE_FENCED, session.CodeOf(refused))
	_, _, _, stale := r.openRecalled(o, "", id, memory)
	require.False(t, stale)
	require.Empty(t, r.recalls)
}

// A store that cannot be read leaves nothing behind, and nothing of the other Opens that ask it.
func TestReceiver_AFailedLoadIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &slowStore{memoryStore: newMemoryStore(), late: make(chan error)}
		r := newReceiver(complete(Config{Dedupe: m}))
		var opened sync.WaitGroup
		opened.Go(func() {
			_, _, refused := r.open(openOf(1), "")
			require.Equal(t, wire.Code_CODE_LIMIT, session.CodeOf(refused))
		})
		synctest.Wait()
		require.Len(t, r.recalls, 1)
		m.late <- errors.New("disk")
		opened.Wait()
		require.Empty(t, r.recalls)
	})
}
