package buffstreams

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/session"
	"github.com/buffstreams/watermill-buffstreams/internal/wire"
	"github.com/buffstreams/watermill-buffstreams/store"
)

// TestOutbox_TellsOfTheMessageThatWasRefused, and of no other: it has left the outbox where that begins behind it.
func TestOutbox_TellsOfTheMessageThatWasRefused(t *testing.T) {
	batch, broken := store.Batch{}, error(nil)
	r, _ := newTestRelay(t, &scriptedOutbox{read: func(uint64) (store.Batch, error) { return batch, broken }})
	for _, c := range []struct {
		first uint64
		err   error
		there bool
	}{{5, nil, true}, {6, nil, false}, {5, errBlocked, false}} {
		batch, broken = store.Batch{First: c.first, Messages: [][]byte{[]byte("a")}}, c.err
		got, there, err := r.load(5)
		require.ErrorIs(t, err, c.err)
		require.Equal(t, c.there, there)
		require.Equal(t, c.there, string(got) == "a")
	}
	batch.Messages, broken = nil, nil
	_, there, err := r.load(5)
	require.NoError(t, err)
	require.False(t, there)
}

// TestOutbox_ARefusedMessageIsKeptUntilItIsSettled, and each is told of once, also where all are refused as the topic is gone.
func TestOutbox_ARefusedMessageIsKeptUntilItIsSettled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newTestPublisher(t, EnvelopeMarshaler{})
		a := using(t, p, "127.0.0.1:1")
		fetched, err := a.sender.Fetch(fetchConfig())
		require.NoError(t, err)
		settled, forgot := errBlocked, 0
		o := &scriptedOutbox{settle: func(...store.Range) error { return settled }, forget: func() error { forgot++; return nil }}
		o.readable = func(uint64) (<-chan struct{}, error) { return nil, nil }
		o.read = func(from uint64) (store.Batch, error) {
			return store.Batch{First: from, Messages: [][]byte{[]byte("a"), []byte("b")}[min(from-1, 2):]}, nil
		}
		r, _ := newTestRelay(t, o)
		r.refused.begin(fetched)
		var told []string
		user := &Publisher{cfg: PublisherConfig{OnFailure: func(string, []byte, error) {}}}
		user.failures = failureQueue{logger: p.logger, hook: func(_ string, encoded []byte, _ error) { told = append(told, string(encoded)) }}
		r.users.published(user, r.key)
		for _, want := range []error{errBlocked, nil} { // of the outbox
			settled = want
			require.True(t, r.refuseAll(store.Stream{First: 1, Next: 3, Pending: 2}, errGone))
			synctest.Wait()
			require.Equal(t, []string{"a", "b"}, told)
			require.Len(t, r.refused.seqs, 2, "the outbox has not let it go")
		}
		require.Equal(t, 2, forgot, "as nothing has come")
		r.refused.seqs = map[uint64]struct{}{}
		r.users.published(user, r.key)
		require.True(t, r.refuseAll(store.Stream{First: 1, Next: 3, Pending: 2}, errGone))
		synctest.Wait()
		require.Equal(t, []string{"a", "b", "a", "b"}, told)
		require.Empty(t, r.refused.seqs)
		fetched.End()
		require.NoError(t, p.Close())
	})
}

// TestOutbox_WithoutOnFailure a message that was refused is kept, but for one whose topic is gone.
func TestOutbox_WithoutOnFailure(t *testing.T) {
	for reason, dropped := range map[*PeerError]bool{session.NewPeerError(wire.Code_CODE_FAILED, "no"): false, errGone: true} {
		p := newTestPublisher(t, EnvelopeMarshaler{})
		fetched, err := using(t, p, "127.0.0.1:1").sender.Fetch(fetchConfig())
		require.NoError(t, err)
		settled := 0
		r, log := newTestRelay(t, &scriptedOutbox{settle: func(...store.Range) error { settled++; return nil }})
		r.refused.begin(fetched)
		r.onRefused(7, reason)
		require.Equal(t, dropped, settled == 1, reason)
		require.Equal(t, dropped, len(r.refused.seqs) == 0, reason)
		require.EqualValues(t, 7, log.Next(t, "error").Fields["sequence"])
		r.onRefused(0, reason) // it is the stream
		require.Equal(t, dropped, settled == 1, reason)
		fetched.End()
		require.NoError(t, p.Close())
	}
}

// TestRefusedMessages_HaveABound: the stream is read on when one of them was told of, or the delivery ends. One that is refused again
// is told of once.
func TestRefusedMessages_HaveABound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newTestPublisher(t, EnvelopeMarshaler{})
		a := using(t, p, "127.0.0.1:1")
		fetched, err := a.sender.Fetch(fetchConfig())
		require.NoError(t, err)
		settled := 0
		r, log := newTestRelay(t, &scriptedOutbox{settle: func(...store.Range) error { settled++; return nil }})
		r.refused.begin(fetched)
		for seq := uint64(1); seq < maxRefused; seq++ {
			require.True(t, r.refused.add(seq))
			require.False(t, r.refused.add(seq))
		}
		require.NoError(t, r.awaitRefused())
		require.Empty(t, log.Lines)
		r.refused.add(maxRefused)
		waited := make(chan error, 2)
		for range 2 {
			go func() { waited <- r.awaitRefused() }() // ends with the confirmation below
		}
		synctest.Wait()
		require.Empty(t, waited)
		require.Len(t, log.Lines, 2)
		line := log.Next(t, "error")
		require.ErrorIs(t, line.Err, ErrUndelivered)
		require.Equal(t, maxRefused, line.Fields["count"])
		r.tell(nil, 1, errGone) // there is no OnFailure
		synctest.Wait()
		require.Equal(t, 1, settled)
		require.Len(t, waited, 2)
		require.NoError(t, <-waited)
		require.NoError(t, <-waited)
		require.Len(t, r.refused.seqs, maxRefused-1)

		r.refused.add(1)
		go func() { waited <- r.awaitRefused() }() // ends with the relay
		synctest.Wait()
		require.Empty(t, waited)
		r.cancel()
		require.ErrorIs(t, <-waited, context.Canceled)
		fetched.End()
		require.NoError(t, p.Close())
	})
}
