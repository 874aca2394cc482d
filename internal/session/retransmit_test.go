package session

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/flow"
	"github.com/buffstreams/watermill-buffstreams/internal/wire"
)

// TestRetransmitBuffer_StuckMessagesPinOnlyThemselves: one message in five hundred is never settled. The window counts
// these, not the chunks that they came in, and after a restart of the receiver exactly they are sent again.
func TestRetransmitBuffer_StuckMessagesPinOnlyThemselves(t *testing.T) {
	const stride, rounds = 500, 2000
	budget := flow.NewBudget(8 << 20)
	o := newOutbound(Identity{}, 1, 1, "a", Window{Messages: 16384, Bytes: 4 << 20, Budget: budget}, 1)
	o.state, o.credit = open, credit{messages: 1 << 40, bytes: 1 << 40}
	var batch Batch
	for range stride {
		_, ok, err := batch.Append(1000, func(dst []byte) ([]byte, error) { return append(dst, make([]byte, 110)...), nil })
		require.True(t, ok)
		require.NoError(t, err)
	}
	for r := range uint64(rounds) {
		require.Equal(t, stride, o.enqueue(&batch, 0, nil), "the window froze in round %d", r)
		for {
			if _, ok := o.segment(1 << 30); !ok {
				break
			}
		}
		first := r*stride + 1
		require.NoError(t, o.acked(&AckFrame{Next: o.sent, Settled: []uint64{first + 1, first + stride - 1}}))
	}
	require.Equal(t, rounds, o.Pending())
	require.Less(t, o.bytes, rounds*113+2*chunkBytes)
	require.Equal(t, 8<<20-o.bytes, budget.Free(), "the budget counts the same")

	require.LessOrEqual(t, len(o.chunks), 3*rounds+1) // each with what is free around it

	o.disconnect()
	require.NoError(t, o.opened(&wire.Opened{Next: 1}))
	o.credit = credit{messages: 1 << 40, bytes: 1 << 40}
	for r := range uint64(rounds) {
		s, ok := o.segment(1 << 30)
		require.True(t, ok)
		require.Equal(t, r*stride+1, s.First)
		require.Len(t, s.Body, 112)
		require.Equal(t, r > 0, s.Gap)
	}
	require.NoError(t, o.acked(&AckFrame{Next: o.sent, Settled: []uint64{1, o.sent - 1}}))
	require.Zero(t, o.Pending())
	require.Zero(t, o.bytes)
	require.Equal(t, 8<<20, budget.Free())
}

// TestRetransmitBuffer_FreesAnOpenChunkThatIsFollowed: the last chunk is kept though all of it is settled, as it takes
// more messages. One that does not fit begins the next chunk, and nothing else would free the one before.
func TestRetransmitBuffer_FreesAnOpenChunkThatIsFollowed(t *testing.T) {
	budget := flow.NewBudget(1 << 20)
	o := newOutbound(Identity{}, 1, 1, "a", Window{Messages: 100, Bytes: 1 << 20, Budget: budget}, 1)
	add := func(size int) {
		var b Batch
		_, ok, err := b.Append(1<<20, func(dst []byte) ([]byte, error) { return append(dst, make([]byte, size)...), nil })
		require.NoError(t, err)
		require.True(t, ok)
		require.Equal(t, 1, o.enqueue(&b, 0, nil))
		o.sent = o.next
	}
	add(chunkInitial)      // stuck, in a chunk of its own
	add(chunkInitial)      // the next one
	o.settle(2, 2)         // which stays, for more
	add(16 * chunkInitial) // but not for this
	o.settle(3, 3)
	o.settle(1, 1)
	require.Zero(t, o.bytes)
	require.Equal(t, 1<<20, budget.Free(), "the budget has everything back")
}
