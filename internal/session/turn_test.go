package session

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/flow"
)

// enqueueTurn is one attempt of a caller.
func (p *pair) enqueueTurn(turn *Turn, sizes ...int) int {
	p.t.Helper()
	o := p.client.Stream("a")
	var b Batch
	for i, size := range sizes {
		add(p.t, &b, content(o.Topic, o.next+uint64(i), size))
	}
	n, _, err := p.client.Enqueue(o, &b, 0, turn)
	require.NoError(p.t, err)
	return n
}

func signalled(turn *Turn) bool {
	select {
	case <-turn.Ready:
		return true
	default:
		return false
	}
}

// fullPair is a pair whose stream is filled by three messages of 600 bytes.
func fullPair(t *testing.T) (p *pair, settle func(seqs ...uint64)) {
	t.Helper()
	p = newPair(t, Window{Messages: 100, Bytes: 2000}, muchRoom)
	p.connect()
	p.flow()
	require.Equal(t, 3, p.enqueue("a", 600, 600, 600))
	p.flow()
	return p, func(seqs ...uint64) {
		p.remote.settle(p.remote.stream("a"), seqs...)
		p.flow()
	}
}

// A call that needs much room is not overtaken by those that need little, and they go on when it is done or gives up.
func TestTurn_CallsAreServedInOrder(t *testing.T) {
	p, settle := fullPair(t)
	large, small, other := NewTurn(), NewTurn(), NewTurn()
	require.Zero(t, p.enqueueTurn(large, 1500))
	require.Zero(t, p.enqueueTurn(small, 10), "it would fit")
	require.Zero(t, p.enqueueTurn(nil, 10), "it would fit")
	require.Zero(t, p.enqueueTurn(other, 10))
	settle(1)
	settle(2)
	require.False(t, signalled(large))
	require.False(t, signalled(small))
	settle(3)
	require.True(t, signalled(large))
	require.True(t, signalled(small), "there is room for it too")
	require.True(t, signalled(other))
	require.Equal(t, 1, p.enqueueTurn(other, 10), "it need not wait until those before it have come")
	require.Equal(t, 1, p.enqueueTurn(nil, 10), "room is left")
	require.Zero(t, p.enqueueTurn(nil, 500), "room is set aside")
	require.Equal(t, 1, p.enqueueTurn(large, 1500))
	require.Equal(t, 1, p.enqueueTurn(small, 10))
	require.Equal(t, line{turns: []*Turn{}}, p.client.Stream("a").line)
}

// What is set aside for a call that gives up goes to the next.
func TestTurn_CallThatGivesUpLeavesItsRoom(t *testing.T) {
	p, settle := fullPair(t)
	first, second, third := NewTurn(), NewTurn(), NewTurn()
	for _, turn := range []*Turn{first, second, third} {
		require.Zero(t, p.enqueueTurn(turn, 500))
	}
	settle(1)
	require.True(t, signalled(first))
	require.False(t, signalled(second))
	require.Zero(t, p.enqueueTurn(nil, 10), "a call waits that came before")
	o := p.client.Stream("a")
	o.Leave(first)
	require.True(t, signalled(second))
	o.Leave(third)
	require.Equal(t, 1, p.enqueueTurn(second, 500))
	o.Leave(second)
}

// Calls that come again and again find the line empty once there was room for all of them.
func TestTurn_LineEmptiesWhereThereIsRoom(t *testing.T) {
	p, settle := fullPair(t)
	turns := []*Turn{NewTurn(), NewTurn(), NewTurn(), NewTurn()}
	for _, turn := range turns {
		require.Zero(t, p.enqueueTurn(turn, 300))
	}
	settle(1, 2, 3)
	for _, turn := range turns {
		require.True(t, signalled(turn))
		require.Equal(t, 1, p.enqueueTurn(turn, 10))
		require.Equal(t, 1, p.enqueueTurn(nil, 10), "the next message of that caller")
	}
}

// A call that the budget has no room for is not overtaken by those behind it, which need less, and holds up none when it gives up.
func TestTurn_CallWaitsForTheBudgetInItsTurn(t *testing.T) {
	for _, givesUp := range []bool{false, true} {
		budget := flow.NewBudget(10_000)
		p := newPair(t, Window{Messages: 100, Bytes: 100_000, Budget: budget}, muchRoom)
		p.connect()
		others := budget.NewAccount(flow.Present)
		held := others.Take(9000, 9000, nil) + others.Take(1, 1000, nil)
		large, small := NewTurn(), NewTurn()
		require.Zero(t, p.enqueueTurn(large, 4000))
		require.Zero(t, p.enqueueTurn(small, 10))
		o := p.client.Stream("a")
		release := func(n int) {
			held -= n
			others.Release(n)
			others.Wake()
		}
		release(1000)
		require.False(t, signalled(large))
		require.False(t, signalled(small))
		o.callLine()
		require.False(t, signalled(small), "it would only be in the way")
		require.Zero(t, p.enqueueTurn(small, 10), "it would fit")
		if givesUp {
			o.Leave(large)
			waits, _ := o.account.Waits()
			require.False(t, waits)
		} else {
			release(held)
			require.True(t, signalled(large))
			require.Equal(t, 1, p.enqueueTurn(large, 4000))
		}
		require.True(t, signalled(small))
		require.Equal(t, 1, p.enqueueTurn(small, 10))
	}
}

// caller is a caller of Publish that tries again only when it is told to.
type caller struct {
	turn  *Turn
	sizes []int // of what is not enqueued
}

// crowd is a pair with callers.
type crowd struct {
	*pair
	rng     *rand.Rand
	callers []*caller
}

func (p *crowd) attempt(c *caller) {
	c.sizes = c.sizes[p.enqueueTurn(c.turn, c.sizes...):]
	o := p.client.Stream("a")
	require.LessOrEqual(p.t, o.pending+o.line.aside.Messages, o.window.Messages)
}

// work has those try again that were told to, in any order. It tells whether there were any.
func (p *crowd) work() (worked bool) {
	for _, i := range p.rng.Perm(len(p.callers)) {
		if c := p.callers[i]; len(c.sizes) > 0 && signalled(c.turn) {
			p.attempt(c)
			worked = true
		}
	}
	return worked
}

// settleSome settles the first of so many parts of what was received.
func (p *crowd) settleSome(parts int) {
	p.flow()
	if s := p.remote.stream("a"); s != nil && len(s.order) > 0 {
		p.remote.settle(s, s.order[:1+(len(s.order)-1)/parts]...)
		p.flow()
	}
}

// Callers with batches of all sizes come, wait for the window and for a budget that others use, give up, and try again only when
// they are told to. In the end all that stayed have enqueued everything, and nothing is set aside.
func TestTurn_NoCallIsForgotten(t *testing.T) {
	for seed := range uint64(100) {
		rng := rand.New(rand.NewPCG(seed, 1))
		budget := flow.NewBudget(3000)
		p := &crowd{
			pair: newPair(t, Window{Messages: 1 + rng.IntN(20), Bytes: 200 + rng.IntN(3000), Budget: budget}, muchRoom),
			rng:  rng,
		}
		p.connect()
		o, others, held := p.client.Stream("a"), budget.NewAccount(flow.Present), 0
		for range 200 {
			switch rng.IntN(6) {
			case 0, 1:
				sizes := make([]int, 1+rng.IntN(4))
				for i := range sizes {
					sizes[i] = rng.IntN(600)
				}
				p.callers = append(p.callers, &caller{turn: NewTurn(), sizes: sizes})
				p.attempt(p.callers[len(p.callers)-1])
			case 2:
				p.settleSome(1 + rng.IntN(3))
			case 3:
				if n := 1 + rng.IntN(1500); rng.IntN(2) == 0 {
					held += others.Take(n, n, nil)
				} else if n = min(n, held); n > 0 {
					held -= n
					others.Release(n)
					others.Wake()
				}
			case 4:
				if len(p.callers) > 0 {
					if c := p.callers[rng.IntN(len(p.callers))]; len(c.sizes) > 0 && rng.IntN(4) == 0 {
						o.Leave(c.turn)
						c.sizes = nil
					}
				}
			default:
				p.work()
			}
		}
		others.Release(held)
		others.Wake()
		for round := 0; p.work() || o.pending > 0; round++ {
			p.settleSome(1)
			require.Less(t, round, 1000, "seed %d", seed)
		}
		for _, c := range p.callers {
			require.Empty(t, c.sizes, "seed %d", seed)
		}
		require.Equal(t, line{turns: []*Turn{}}, o.line, "seed %d", seed)
		require.Equal(t, 3000, budget.Free(), "seed %d", seed)
	}
}
