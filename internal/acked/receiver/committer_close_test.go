package receiver

import (
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/session"
	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
)

// A handler settles its message while the Receiver closes: what no write will take any more returns an error, instead
// of waiting for good, and what came in time is saved.
func TestCommitter_CloseReleasesWhatIsWrittenNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemoryStore()
		c := newCommitter(m, testkit.NewLog())
		s := &stream{in: session.RestoreInbound(nil, 1)}
		require.NoError(t, c.commit(s))
		c.flusher.Close() // close has come as far as this
		result := make(chan error, 1)
		go func() { result <- c.commit(s) }() // ends with commit
		synctest.Wait()
		require.Empty(t, result)
		c.close()
		synctest.Wait()
		require.Len(t, result, 1, "it waits for good")
		require.ErrorIs(t, <-result, ErrClosed)
		require.ErrorIs(t, c.commit(s), ErrClosed)
		require.ErrorIs(t, c.forget(s), ErrClosed)
		require.Len(t, m.saved, 1)
	})
}
