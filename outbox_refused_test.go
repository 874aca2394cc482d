package buffstreams

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/store"
)

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
