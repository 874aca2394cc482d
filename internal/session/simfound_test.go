package session

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/flow"
)

// A Publish waits for the budget of the process while its stream has nothing on its way: the stream is not idle, and if
// it was forgotten all the same, no message is enqueued to a stream that is never sent. Found by the simulation.
func TestClient_DoesNotForgetAStreamUnderItsPublisher(t *testing.T) {
	window := roomy
	window.Budget = flow.NewBudget(1000)
	p := newPair(t, window, muchRoom)
	p.client.cfg.ForgetAfter = time.Second
	p.connect()
	require.Equal(t, 1, p.enqueue("a", 1))
	p.flow()
	p.remote.settle(p.remote.stream("a"), 1)
	p.flow()
	o := p.client.Stream("a")
	require.Zero(t, o.Pending())
	others := window.Budget.NewAccount(flow.Present)
	require.NotZero(t, others.Take(1, 1000, nil))
	turn := NewTurn()
	var large Batch
	add(t, &large, make([]byte, 500))
	for range 50 {
		n, _, err := p.client.Enqueue(o, &large, 0, turn)
		require.NoError(t, err)
		require.Zero(t, n)
		p.now = p.now.Add(300 * time.Millisecond)
		require.NoError(t, p.client.Tick(p.now, late))
		p.flow()
	}
	require.Same(t, o, p.client.Find("a"))
	require.Empty(t, turn.Ready)
	others.Release(1000 - window.Budget.Free())
	others.Wake()
	<-turn.Ready
	o.Leave(turn)

	for range 10 {
		p.now = p.now.Add(300 * time.Millisecond)
		require.NoError(t, p.client.Tick(p.now, late))
	}
	require.Nil(t, p.client.Find("a"))
	var b Batch
	add(t, &b, []byte("late"))
	_, _, err := p.client.Enqueue(o, &b, 0, nil)
	require.ErrorIs(t, err, ErrEnded)
	now := p.client.Current(o)
	require.NotSame(t, o, now)
	n, first, err := p.client.Enqueue(now, &b, 0, nil)
	require.NoError(t, err)
	require.Equal(t, 1, n)
	require.Equal(t, uint64(1), first)
}

// A fetched stream that ends on a connection that goes on returns its credit, also what is granted to it later. Found
// by the simulation.
func TestFetched_KeepsNoCreditWhenItEnds(t *testing.T) {
	for _, late := range []bool{false, true} {
		p := newPair(t, roomy, muchRoom)
		s := newBacklog(p, 1)
		s.add(1)
		p.connect()
		if !late {
			p.flow()
			require.NotEqual(t, muchRoom, p.remote.room)
		} else {
			for !p.remote.stream("a").online { // the grant is on its way when the stream ends
				p.output()
				require.NoError(t, p.deliverUp(1))
				require.NoError(t, p.deliverDown(1))
			}
		}
		p.client.EndFetched(s.o)
		p.flow()
		require.Equal(t, muchRoom, p.remote.room)
	}
}

// A receiver that remembers across a restart that a later message was settled, and gets the one before it again, has
// settled more than it has received: nothing is left to do, and the state may go. Found by the simulation.
func TestInbound_SettledFurtherThanReceivedIsIdle(t *testing.T) {
	in := RestoreInbound([]Range{{First: 1, Last: 31}, {First: 33, Last: 33}}, 1)
	in.Attach(4, 32)
	require.True(t, in.Idle(), "nothing was received that is not settled")
	in.Grant(Amount{Messages: 1, Bytes: 100})
	_, first, _, err := in.Accept(&PublishFrame{Handle: 4, First: 32, Messages: [][]byte{{1}}, Bytes: 3})
	require.NoError(t, err)
	require.EqualValues(t, 32, first)
	require.False(t, in.Idle())
	in.Settle(32, 32)
	require.Zero(t, in.Unsettled())
	require.True(t, in.Idle())
}
