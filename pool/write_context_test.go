package pool

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
)

func TestWriter_WriteContextEndsTheWaitForRoomAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := testkit.NewNetwork()
		w := dialTest(t, WriterConfig{Address: "peer:1", Dial: network.Dial, BufferSize: 10})
		conn := <-network.Servers
		late := errors.New("too late")
		over, cancel := context.WithCancelCause(t.Context())
		cancel(late)
		for _, m := range []string{"sent 12345", "waiting 12"} { // there is room for them, so that their context does not matter
			_, err := w.WriteContext(over, []byte(m))
			require.NoError(t, err)
			synctest.Wait()
		}
		patient := make(chan error, 1)
		go func() { // ends when the peer reads
			_, err := w.Write([]byte("patient"))
			patient <- err
		}()
		synctest.Wait()
		start := time.Now()
		ctx, cancelTimeout := context.WithTimeoutCause(t.Context(), time.Second, late)
		defer cancelTimeout()
		_, err := w.WriteContext(ctx, []byte("impatient"))
		require.ErrorIs(t, err, late)
		assert.Equal(t, time.Second, time.Since(start))
		assert.Empty(t, patient)
		for _, want := range []string{"sent 12345", "waiting 12", "patient"} {
			m, err := peerRead(conn, width4096)
			require.NoError(t, err)
			assert.Equal(t, want, string(m), "what was refused was not queued")
		}
		require.NoError(t, <-patient)
		assert.Zero(t, w.waiters)
		require.NoError(t, w.Close())
	})
}
