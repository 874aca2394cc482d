package session

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/flow"
	"github.com/buffstreams/watermill-buffstreams/internal/wire"
)

// meet begins a new connection with a receiver that knows moves.
func (p *pair) meet(instance byte) {
	p.cut()
	p.connect()
	require.NoError(p.t, p.say(&wire.Frame{Body: &wire.Frame_Welcome{Welcome: &wire.Welcome{
		Version: 1, MaxFrame: MinFrame, MaxMessage: 1 << 20, Features: []string{FeatureMove}, Instance: append(make([]byte, 15), instance),
	}}}))
}

// left returns a pair whose client has lost a stream that a receiver which is away may still give out.
func left(t *testing.T) *pair {
	p, o := mover(t, 3)
	p.client.Disconnect()
	p.client.Refuse()
	require.Equal(t, 3, p.client.Detach(o))
	require.True(t, p.client.Left())
	return p
}

// A receiver that is met again is told of each stream that has left it, until it has answered.
func TestLeft_IsToldUntilItIsAnswered(t *testing.T) {
	p := left(t)
	l := p.client.peer.left[0]
	p.meet(0)
	first := l.handle
	require.NotZero(t, first)
	p.cut()
	require.Zero(t, l.handle, "an answer to it would be one to another stream")
	p.meet(0)
	require.NotEqual(t, first, l.handle)
	require.True(t, p.client.Left())
	require.NoError(t, p.say(&wire.Frame{Body: &wire.Frame_Returned{Returned: &wire.Returned{Handle: l.handle, Next: 4}}}))
	require.False(t, p.client.Left())
}

// What an earlier process has left behind is told at once where the receiver is there.
func TestLeft_BehindIsToldAtOnce(t *testing.T) {
	p, o := mover(t, 1)
	p.client.LeftBehind(o.id, 9, "t", 4)
	control, _, _ := p.client.Output(nil, 1<<20)
	require.NotEmpty(t, control)
	require.NotZero(t, p.client.peer.left[0].handle)
}

// A stream that is to leave is taken back from a receiver that is met again; one that was to leave, and stays, begins a new tenure, as the
// receiver may have revoked it.
func TestMove_GoesOnAcrossAReconnect(t *testing.T) {
	p, o := mover(t, 3)
	require.True(t, p.client.Leave(o, p.now))
	p.meet(0)
	require.True(t, o.revoking)

	p, o = mover(t, 3)
	require.True(t, p.client.Leave(o, p.now))
	p.client.Stay(o)
	p.meet(0)
	require.EqualValues(t, 2, o.Tenure())
}

// A stream that stays after all goes on with the receiver's answer.
func TestMove_StaysWithTheAnswer(t *testing.T) {
	p, o := mover(t, 3)
	require.True(t, p.client.Leave(o, p.now))
	p.client.Stay(o)
	said := len(p.client.control)
	require.True(t, p.client.Leave(o, p.now))
	require.Len(t, p.client.control, said, "it is revoked once")
	p.client.Stay(o)
	require.EqualValues(t, 1, o.Tenure())
	handled := &Waiter{Level: Handled, First: 1, Last: 2, Done: make(chan struct{}, 1)}
	p.client.Await(o, handled)
	require.NoError(t, p.say(returned(o, &wire.Returned{Next: 4, Settled: []uint64{1, 2}, Returned: []uint64{3, 3}})))
	require.Equal(t, opening, o.state)
	require.EqualValues(t, 2, o.Tenure())
	require.True(t, done(handled))
}

// Another instance of the receiver has nothing of what was sent: the stream begins a new tenure, and streams may move now.
func TestMove_AnotherInstanceHasNothing(t *testing.T) {
	p, o := mover(t, 3)
	p.meet(1)
	require.EqualValues(t, 1, o.Tenure(), "it had not said which it was")
	p.meet(1)
	require.EqualValues(t, 1, o.Tenure())
	require.False(t, p.client.TookMoves())
	p.meet(2)
	require.EqualValues(t, 2, o.Tenure())
	require.True(t, p.client.TookMoves())
	require.False(t, p.client.TookMoves())
}

// Consumers have MoveAfter to settle what they have. Then the receiver is to answer at once, and the stream leaves with what it says.
func TestMove_WaitsForConsumersNoLonger(t *testing.T) {
	p, o := mover(t, 3)
	require.True(t, p.client.Leave(o, p.now))
	p.output()
	answer := returned(o, &wire.Returned{Next: 4, Returned: []uint64{2, 3}, InHand: 1})
	tick := func(after time.Duration) (told bool) {
		p.now = p.now.Add(after)
		require.NoError(t, p.client.Tick(p.now, late))
		return o.atOnce
	}
	require.False(t, tick(time.Second-1))
	require.True(t, p.client.Leave(o, p.now), "which is said again and again")
	require.NoError(t, p.say(answer))
	require.False(t, p.client.MayMove(o))
	require.True(t, tick(1))
	control, _, _ := p.client.Output(nil, 1<<20)
	require.NotEmpty(t, control)
	require.True(t, tick(time.Second))
	control, _, _ = p.client.Output(nil, 1<<20)
	require.Empty(t, control, "it was told once")
	require.NoError(t, p.say(answer))
	require.True(t, p.client.MayMove(o))
}

// A stream that moves is the new Client's in every respect, and of the other nothing has it.
func TestMove_IsAllTheNewClients(t *testing.T) {
	p, o := mover(t, 3)
	require.Equal(t, 1, p.enqueued(o, 1, nil))
	require.Contains(t, p.client.sendQueue, o)
	p.client.withEvents = append(p.client.withEvents, o)
	p.client.peer.silent = true
	p.client.Detach(o)
	for _, has := range [][]*Outbound{p.client.order, p.client.sendQueue, p.client.withEvents, p.client.inOrder()} {
		require.NotContains(t, has, o)
	}
	require.Empty(t, p.client.handles)
	require.False(t, o.queued)

	to, _ := mover(t, 1)
	to.client.Adopt(o)
	require.Contains(t, to.client.order, o)
	require.Same(t, o, to.client.handles[o.handle])
	require.Equal(t, opening, o.state)
	o.settle(1, 4)
	require.Equal(t, []uint64{0, 4}, []uint64{p.client.Totals().Settled, to.client.Totals().Settled})
}

// The budget knows of each stream whether its receiver is there, however the Client has come by it.
func TestClient_StreamsAreWhereTheirReceiverIs(t *testing.T) {
	p, _ := mover(t, 1)
	p.client.cfg.Window.Budget = flow.NewBudget(1 << 20)
	here := func(o *Outbound) bool {
		_, absent := o.account.Waits()
		return !absent
	}
	started := p.client.StartStream(Identity{Publisher: [16]byte{1}, Epoch: 1}, 8, "t", false)
	named := p.client.Stream("n")
	require.True(t, here(started))
	require.True(t, here(named))
	require.NoError(t, p.say(&wire.Frame{Body: &wire.Frame_Goaway{Goaway: &wire.Goaway{}}}))
	require.Equal(t, flow.Absent, p.client.presence, "the first stream has a message")
	require.False(t, here(started))
	require.False(t, here(p.client.Stream("later")))
	p.client.Detach(started)
	to, _ := mover(t, 1)
	to.client.Adopt(started)
	require.True(t, here(started))
	p.meet(0)
	require.True(t, here(named))
	p.client.Disconnect()
	require.False(t, here(named))
}

// A stream that gets another handle is among the streams once.
func TestMove_ANewHandleMakesNoSecondStream(t *testing.T) {
	p, o := mover(t, 3)
	p.client.rehandle(o)
	require.Equal(t, []*Outbound{o}, p.client.inOrder())
	require.Len(t, p.client.handles, 1)
}

// TestMove_AReceiverThatGreetsIsThere, also after it was gone: what it is sent comes back with its answer. What is settled can go without.
func TestMove_AReceiverThatGreetsIsThere(t *testing.T) {
	p, o := mover(t, 2)
	p.client.Refuse()
	require.False(t, p.client.MayMove(o), "it is connected")
	p.cut()
	require.False(t, p.client.MayMove(o), "it may be there")
	p.client.Refuse()
	require.True(t, p.client.MayMove(o))
	p.meet(0)
	require.False(t, p.client.Gone())
	require.False(t, p.client.MayMove(o))
	o.settle(1, 2)
	require.True(t, p.client.MayMove(o))
}

// TestMove_RepeatsAreThoseThatAreNotSettled, of what another receiver may have had.
func TestMove_RepeatsAreThoseThatAreNotSettled(t *testing.T) {
	_, o := mover(t, 10)
	require.Zero(t, o.Repeats())
	o.lapse([]uint64{3, 4, 8, 8}, 10)
	require.Equal(t, 6, o.Repeats(), "1, 2, 5, 6, 7 and 9")
	o.settle(5, 5)
	require.Equal(t, 5, o.Repeats())
	o.settle(9, 9)
	require.Equal(t, 4, o.Repeats())
	o.settle(1, 3)
	require.Equal(t, 2, o.Repeats(), "6 and 7")
	o.settle(6, 7)
	require.Zero(t, o.Repeats())
}
