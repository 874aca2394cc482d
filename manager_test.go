package buffstreams

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/acked/acktest"
	"github.com/buffstreams/watermill-buffstreams/internal/dispatch"
	"github.com/buffstreams/watermill-buffstreams/internal/session"
)

// The batch does not fit the window at once: its first message is refused before the last one is enqueued.
func TestSender_RefusalBeforeTheWholeBatchWasEnqueued(t *testing.T) {
	_, l, e := newPair(t, AckedConfig{WindowMessages: 2})
	c := newConsumer(e, "a")
	result := make(chan error, 1)
	go func() {
		_, _, err := l.Publish(context.Background(), "a", acktest.BatchOf(t, "1", "2", "3", "4"), session.Handled, 10*time.Second)
		result <- err
	}()
	c.Refuse(c.next(), dispatch.Refusal{Reason: "no"})
	for range 3 {
		c.Settle(c.next())
	}
	var refused *session.PeerError
	err := <-result
	require.ErrorAs(t, err, &refused)
}

// What a closed endpoint held goes back to the process's budget.
func TestReceiver_CloseGivesTheBudgetBack(t *testing.T) {
	m, l, e := newPair(t, AckedConfig{})
	c := newConsumer(e, "a")
	_, _, err := l.Publish(context.Background(), "a", acktest.BatchOf(t, "1", "2", "3"), session.Received, 10*time.Second)
	require.NoError(t, err)
	c.Return(c.next())
	c.Leave()
	require.NoError(t, m.CloseListener(context.Background(), anyPort.Address))
	require.Equal(t, m.cfg.Acked.MemoryLimit, m.held.Free(), "all of it is free")
}

// Senders to a listener of the same Manager end before it does: what they take beyond the time-out, the listener has less.
func TestManager_CloseHasOneGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.Equal(t, endGrace, endGraceFor(ctx))
		<-ctx.Done()
		require.Equal(t, endGrace, endGraceFor(ctx))
		time.Sleep(closeGrace)
		require.Equal(t, endGrace-closeGrace, endGraceFor(ctx))
		time.Sleep(endGrace)
		require.Equal(t, 2*closeGrace, endGraceFor(ctx), "subscriptions leave callbacks behind")
		forEver, end := context.WithCancel(t.Context())
		end()
		require.Equal(t, endGrace, endGraceFor(forEver))
	})
}
