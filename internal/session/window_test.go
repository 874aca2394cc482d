package session

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/flow"
	"github.com/buffstreams/watermill-buffstreams/internal/wire"
)

func TestWindow_OfMessagesBlocksAndFrees(t *testing.T) {
	p := newPair(t, Window{Messages: 5, Bytes: 1 << 20}, muchRoom)
	p.connect()
	require.Equal(t, 5, p.enqueue("a", many(8)...))
	require.Zero(t, p.enqueue("a", 1))
	room := p.client.Stream("a").Room()
	p.flow()
	select {
	case <-room:
		t.Fatal("received is not settled")
	default:
	}
	s := p.remote.stream("a")
	p.remote.settle(s, 4) // the window counts messages, not their span
	p.flow()
	<-room
	require.Equal(t, 1, p.enqueue("a", many(3)...))
	require.Equal(t, 5, p.client.Pending())
	room = p.client.Stream("a").Room()
	p.flow()
	p.remote.reject(s, 1)
	p.flow()
	<-room
	require.Equal(t, 1, p.enqueue("a", many(3)...))
}

func TestWindow_OfBytesBlocksAndFrees(t *testing.T) {
	p := newPair(t, Window{Messages: 1000, Bytes: 1000}, muchRoom)
	p.connect()
	require.Equal(t, 10, p.enqueue("a", 98, 98, 98, 98, 98, 98, 98, 98, 98, 98, 98, 98), "a hundred each with tag and length")
	p.flow()
	s := p.remote.stream("a")
	room := p.client.Stream("a").Room()
	p.remote.settle(s, s.order...)
	p.flow()
	<-room
	require.Equal(t, 1, p.enqueue("a", 5000, 5), "one message goes through, whatever the window")
	p.flow()
	require.Zero(t, p.enqueue("a", 1))
	p.remote.settle(s, s.order...)
	p.flow()
	require.Equal(t, 1, p.enqueue("a", 1))
}

// memory is what a stream keeps of messages.
func memory(o *Outbound) (bytes int) {
	for _, c := range o.chunks {
		bytes += cap(c.buf)
	}
	return bytes
}

func TestRetransmitBuffer_FreesSettledMessages(t *testing.T) {
	budget := flow.NewBudget(1 << 20)
	p := newPair(t, Window{Messages: 1 << 20, Bytes: 1 << 20, Budget: budget}, muchRoom)
	p.connect()
	for range 20 {
		p.enqueue("a", 30000, 30000, 30000, 10, 10)
		p.flow()
		s := p.remote.stream("a")
		p.remote.settle(s, s.order...)
		p.flow()
		o := p.client.Stream("a")
		require.Zero(t, memory(o), "an idle stream keeps nothing")
		require.Zero(t, o.bytes)
	}
	require.Equal(t, 1<<20, budget.Free(), "the budget has everything back")
}

// Behind a message that is stuck for ever, others come and go: neither their bytes nor their bookkeeping may stay.
func TestRetransmitBuffer_AStuckMessagePinsLittle(t *testing.T) {
	const total, batch = 150_000, 500
	p := newPair(t, Window{Messages: 2 * batch, Bytes: 1 << 20}, muchRoom)
	p.connect()
	var chunks, bytes int
	o, s := p.client.Stream("a"), p.remote.stream("a")
	sizes := make([]int, batch)
	for i := range sizes {
		sizes[i] = 20
	}
	for sent := 0; sent < total; sent += batch {
		require.Equal(t, batch, p.enqueue("a", sizes...), "after %d", sent)
		p.flow()
		if sent == 0 {
			s.order = s.order[1:]
		}
		p.remote.settle(s, s.order...)
		s.order = s.order[:0]
		clear(s.ever)
		clear(s.finished)
		p.published = nil
		p.flow()
		chunks, bytes = max(chunks, len(o.chunks)), max(bytes, memory(o))
	}
	require.Equal(t, 1, p.client.Pending())
	require.Less(t, chunks, 50, "chunks")
	require.Less(t, bytes, 4*chunkBytes, "bytes")
	require.Less(t, o.settled.Sparse(), 3)

	p.cut() // and it is still there to be sent again
	p.remote.restart(false)
	p.connect()
	p.flow()
	require.Equal(t, []uint64{1}, s.order)
	p.remote.settle(s, 1)
	p.flow()
	require.Empty(t, o.chunks)
}

// The same with several stuck ones among the others, and a receiver that lost everything in between.
func TestRetransmitBuffer_StuckMessagesAreFoundAmongWhatWasFreed(t *testing.T) {
	p := newPair(t, roomy, muchRoom)
	p.connect()
	o, s := p.client.Stream("a"), p.remote.stream("a")
	var stuck []uint64
	for round := range 100 {
		p.enqueue("a", many(700)...)
		p.flow()
		if round%9 == 0 {
			stuck = append(stuck, o.next-350, o.next-349, o.next-1)
			for _, seq := range stuck {
				delete(s.held, seq)
			}
		}
		p.remote.settle(s, s.order...)
		s.order = s.order[:0]
		p.flow()
		require.Equal(t, len(stuck), p.client.Pending())
		require.LessOrEqual(t, len(o.chunks), 2*len(stuck)+40)
		if round%20 == 13 {
			p.cut()
			p.remote.restart(false)
			p.connect()
			p.flow()
			require.Equal(t, stuck, s.order)
			for _, seq := range stuck {
				delete(s.held, seq)
			}
			s.order = s.order[:0]
		}
	}
	for _, seq := range stuck {
		s.held[seq] = 0
	}
	p.remote.settle(s, stuck...)
	p.flow()
	require.Zero(t, p.client.Pending())
	require.Empty(t, o.chunks)
}

func TestWindow_BudgetIsReturnedHoweverAStreamEnds(t *testing.T) {
	const size = 1 << 20
	start := func(t *testing.T) (*pair, *flow.Budget) {
		budget := flow.NewBudget(size)
		p := newPair(t, Window{Messages: 1 << 20, Bytes: 1 << 20, Budget: budget}, muchRoom)
		p.enqueue("a", 100, 70000, 30000, 30000, 30000, 5)
		return p, budget
	}
	t.Run("settled at resume", func(t *testing.T) {
		p, budget := start(t)
		p.connect()
		p.flow()
		p.cut()
		s := p.remote.stream("a")
		p.remote.settle(s, s.order...)
		p.connect()
		p.flow()
		require.Zero(t, p.client.Pending())
		require.Zero(t, memory(p.client.Stream("a")))
		require.Equal(t, size, budget.Free())
	})
	t.Run("refused", func(t *testing.T) {
		p, budget := start(t)
		p.remote.refuse["a"] = wire.Code_CODE_FORBIDDEN
		p.connect()
		p.flow()
		require.Zero(t, p.client.Pending())
		require.Equal(t, size, budget.Free())
	})
	t.Run("aborted", func(t *testing.T) {
		p, budget := start(t)
		p.client.Abort(errLate)
		require.Equal(t, size, budget.Free())
	})
	t.Run("too large for the peer", func(t *testing.T) {
		p, budget := start(t)
		p.remote.welcome.MaxFrame = MinFrame
		p.connect()
		s := p.remote.stream("a")
		s.refused[2] = true
		p.flow()
		p.remote.settle(s, s.order...)
		p.flow()
		require.Zero(t, p.client.Pending())
		require.Equal(t, size, budget.Free())
	})
}

// A peer that left when all was settled may be there again: a message must get in, though absent peers have taken what
// is for them, or nothing would make the sender connect.
func TestWindow_TakesTheMessageThatShowsWhetherAPeerIsBack(t *testing.T) {
	window := roomy
	window.Budget = flow.NewBudget(1000)
	p := newPair(t, window, muchRoom)
	p.connect()
	require.Equal(t, 1, p.enqueue("a", 10))
	p.flow()
	p.remote.settle(p.remote.stream("a"), 1)
	p.flow()
	require.Zero(t, p.client.Pending())
	p.cut()
	p.client.Unreachable() // as the Sender notes for every connection that it loses
	require.NotZero(t, window.Budget.NewAccount(flow.Absent).Take(1, 1000, nil))
	require.Equal(t, 1, p.enqueue("a", 100, 100), "of two messages")
	p.client.Unreachable()
	require.Zero(t, p.enqueue("a", 100))
	p.connect()
	p.flow()
	require.Equal(t, 1, p.enqueue("a", 100), "it is back")
}
