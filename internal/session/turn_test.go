package session

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func batchOf(t *testing.T, sizes ...int) *Batch {
	t.Helper()
	var b Batch
	for _, n := range sizes {
		add(t, &b, make([]byte, n))
	}
	return &b
}

// A call that needs much room is not overtaken by those that need little, and they go on when it is done or gives up.
func TestTurn_CallsAreServedInOrder(t *testing.T) {
	p := newPair(t, Window{Messages: 100, Bytes: 2000}, muchRoom)
	p.connect()
	p.flow()
	enqueue := func(b *Batch, turn *Turn) int {
		t.Helper()
		n, _, err := p.client.Enqueue(p.client.Stream("a"), b, 0, turn)
		require.NoError(t, err)
		return n
	}
	signalled := func(turn *Turn) bool {
		select {
		case <-turn.Ready:
			return true
		default:
			return false
		}
	}
	require.Equal(t, 3, p.enqueue("a", 600, 600, 600))
	p.flow()
	large, small, other := NewTurn(), NewTurn(), NewTurn()
	require.Zero(t, enqueue(batchOf(t, 1500), large))
	require.Zero(t, enqueue(batchOf(t, 10), small), "it would fit")
	require.Zero(t, enqueue(batchOf(t, 10), nil), "it would fit")
	require.Zero(t, enqueue(batchOf(t, 10), other))
	s := p.remote.stream("a")
	for _, seq := range []uint64{1, 2} {
		p.remote.settle(s, seq)
		p.flow()
		require.True(t, signalled(large), "it looks again")
		require.False(t, signalled(small))
		if seq == 1 {
			require.Zero(t, enqueue(batchOf(t, 1500), large))
		}
	}
	require.Zero(t, enqueue(batchOf(t, 1500), large))
	p.remote.settle(s, 3)
	p.flow()
	require.Equal(t, 1, enqueue(batchOf(t, 1500), large))
	require.True(t, signalled(small), "it is the first now")
	require.Zero(t, enqueue(batchOf(t, 10), other))
	p.client.Stream("a").Leave(small)
	require.True(t, signalled(other))
	require.Equal(t, 1, enqueue(batchOf(t, 10), other))
	require.Equal(t, 1, enqueue(batchOf(t, 10), nil), "the line is empty")
}
