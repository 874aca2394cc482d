package moves

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/acked/sender"
	"github.com/buffstreams/watermill-buffstreams/internal/session"
	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
)

// never is a MoveAfter that no test waits for.
const never = time.Hour

func TestMoves_NeverSentMovesFreely(t *testing.T) {
	testkit.CheckLeaks(t)
	a, b := newHost(t), newHost(t)
	a.gate.pause() // it accepts, and does not answer the greeting
	w := newWorld(t, never)
	from, to := w.sender(a.address()), w.sender(b.address())
	st := w.stream(from)
	published := w.publishing(st, 5, session.Received)
	require.Eventually(t, func() bool { return st.Unsettled() == 5 }, patience, time.Millisecond)

	st.MoveTo(to)
	m := w.moved(1)
	require.Equal(t, 5, m.Messages)
	require.Zero(t, m.Repeats)
	b.handle(5)
	require.NoError(t, testkit.Receive(t, published), "the Publish that waits moves with its messages")
	require.Equal(t, numbers(1, 5), b.ids())
	require.Empty(t, b.marked())
	w.drain(st)
}

func TestMoves_GoneReceiver(t *testing.T) {
	testkit.CheckLeaks(t)
	a, b := newHost(t), newHost(t)
	w := newWorld(t, never)
	from, to := w.sender(a.address()), w.sender(b.address())
	w.alternative(to)
	st := w.stream(from)
	published := w.publishing(st, 10, session.Handled)
	a.handle(2)
	require.Eventually(t, func() bool { return st.Unsettled() == 8 }, patience, time.Millisecond)
	a.take(3)

	a.gate.kill()
	m := w.moved(1)
	require.Equal(t, 8, m.Repeats, "all that was sent and is not known to be settled")
	require.EqualValues(t, 2, m.Tenure)
	require.Equal(t, sender.Gone, from.State())
	w.publish(st, 2)
	b.handle(10)
	require.NoError(t, testkit.Receive(t, published))
	require.Equal(t, numbers(3, 12), b.ids())
	require.Equal(t, numbers(3, 10), b.marked())
	for _, g := range b.got {
		require.EqualValues(t, 2, g.tenure)
	}
	w.drain(st)
}

func TestMoves_RevokedStreamLosesAndRepeatsNothing(t *testing.T) {
	testkit.CheckLeaks(t)
	a, b := newHost(t), newHost(t)
	w := newWorld(t, never)
	from, to := w.sender(a.address()), w.sender(b.address())
	st := w.stream(from)
	w.publish(st, 10)
	a.take(3)
	a.holds(7)

	st.MoveTo(to)
	a.holds(0)
	w.publish(st, 2) // they wait for the move, so that the order holds
	require.Same(t, from, st.Sender())
	a.settle(2)
	b.receiver.Topic(topic)
	require.Empty(t, b.got)
	a.settle(1)
	m := w.moved(1)
	require.Zero(t, m.Repeats)
	b.handle(9)
	require.Equal(t, numbers(4, 12), b.ids())
	require.Empty(t, b.marked())
	w.drain(st)
	require.Same(t, to, st.Sender())
}

// TestMoves_RevokedStreamOfWhichNothingWasTaken: all of it comes back, from the first message on, and none is marked.
func TestMoves_RevokedStreamOfWhichNothingWasTaken(t *testing.T) {
	testkit.CheckLeaks(t)
	a, b := newHost(t), newHost(t)
	w := newWorld(t, never)
	from, to := w.sender(a.address()), w.sender(b.address())
	st := w.stream(from)
	w.publish(st, 10)
	a.holds(10)
	b.receiver.Topic(topic)

	st.MoveTo(to)
	require.Zero(t, w.moved(1).Repeats)
	b.handle(10)
	require.Equal(t, numbers(1, 10), b.ids())
	require.Empty(t, b.marked())
	w.drain(st)
}

// TestMoves_WhatCannotJoinAStreamThatLeavesIsGivenBack at once, whatever the call waits for.
func TestMoves_WhatCannotJoinAStreamThatLeavesIsGivenBack(t *testing.T) {
	testkit.CheckLeaks(t)
	a, b := newHost(t), newHost(t)
	w := newWorld(t, never)
	from, to := w.sender(a.address()), w.sender(b.address())
	st := w.newStream(from, true)
	w.publish(st, 3)
	a.take(3) // the stream waits for its handlers
	st.MoveTo(to)
	a.holds(0)
	for _, level := range []session.Level{0, session.Received, session.Handled} {
		enqueued, lacking, err := st.Publish(context.Background(), w.batch(2), level, patience)
		var back *sender.WithdrawnError
		require.ErrorAs(t, err, &back)
		require.NoError(t, back.Err)
		require.Equal(t, []session.Range{{First: 0, Last: 1}}, back.Messages)
		require.Equal(t, 2, enqueued)
		require.Empty(t, lacking)
	}
	b.receiver.Topic(topic)
	a.settle(3)
	w.drain(st)
}

func TestMoves_RevokedStreamDoesNotWaitForASlowHandler(t *testing.T) {
	testkit.CheckLeaks(t)
	a, b := newHost(t), newHost(t)
	w := newWorld(t, 300*time.Millisecond)
	from, to := w.sender(a.address()), w.sender(b.address())
	st := w.stream(from)
	w.publish(st, 10)
	a.take(3)
	a.holds(7)

	st.MoveTo(to)
	a.holds(0)
	a.member.Settle(a.inHand[1])
	m := w.moved(1)
	require.Equal(t, 2, m.Repeats, "what the handlers still have")
	b.handle(9)
	require.Equal(t, []int{1, 3, 4, 5, 6, 7, 8, 9, 10}, b.ids())
	require.Equal(t, []int{1, 3}, b.marked())
	w.drain(st)
	a.member.Settle(a.inHand[0]) // of no interest to anybody
	a.member.Settle(a.inHand[2])
}

func TestMoves_SilentReceiver(t *testing.T) {
	testkit.CheckLeaks(t)
	const after = 600 * time.Millisecond
	a, b := newHost(t), newHost(t)
	w := newWorld(t, after)
	from, to := w.sender(a.address()), w.sender(b.address())
	w.alternative(to)
	st := w.stream(from)
	w.publish(st, 10)
	a.handle(2)
	require.Eventually(t, func() bool { return st.Unsettled() == 8 }, patience, time.Millisecond)
	a.take(3)
	a.holds(5)

	began := time.Now()
	a.gate.pause()
	m := w.moved(1)
	require.Greater(t, time.Since(began), after)
	require.Less(t, time.Since(began), after+patience, "a silent peer is given up after 30 s")
	require.Equal(t, 8, m.Repeats)
	b.handle(8)
	require.Equal(t, numbers(3, 10), b.ids())
	require.Equal(t, numbers(3, 10), b.marked())
	w.drain(st)

	require.Equal(t, 5, a.receiver.Topic(topic).Backlog("g"))
	require.Equal(t, sender.Silent, from.State())
	a.gate.resume()
	a.holds(0) // it voids the old tenure when it is met again
	require.Eventually(t, func() bool { return from.State() == sender.Ready }, patience, time.Millisecond)
}

// TestMoves_SilentReceiverThatWasSentNothing, as it has not answered the Open: a stream that begins at a connection which is dead already.
func TestMoves_SilentReceiverThatWasSentNothing(t *testing.T) {
	testkit.CheckLeaks(t)
	a, b := newHost(t), newHost(t)
	w := newWorld(t, 600*time.Millisecond)
	from, to := w.sender(a.address()), w.sender(b.address())
	w.alternative(to)
	st := w.stream(from)
	w.publish(st, 1)
	a.handle(1)
	w.drain(st)
	a.gate.pause()
	fresh := w.stream(from)
	w.publish(fresh, 3)
	require.Zero(t, w.moved(1).Repeats)
	b.handle(3)
	require.Empty(t, b.marked())
	w.drain(fresh)
	a.gate.resume()
}

func TestMoves_SilentReceiverThatIsMetOnAnotherConnection(t *testing.T) {
	testkit.CheckLeaks(t)
	a, b := newHost(t), newHost(t)
	w := newWorld(t, 600*time.Millisecond)
	from, to := w.sender(a.address()), w.sender(b.address())
	w.alternative(to)
	st := w.stream(from)
	w.publish(st, 10)
	a.take(3)
	a.holds(7)
	a.gate.pause()
	w.moved(1)
	b.handle(10)
	w.drain(st)

	a.gate.reset()
	a.gate.resume()
	a.holds(0)
	a.settle(3)
	w.alternative(nil)
	st.MoveTo(from) // it comes back, and nothing of the old tenure counts
	w.publish(st, 2)
	a.handle(2)
	require.Equal(t, []int{1, 2, 3, 11, 12}, a.ids())
	w.drain(st)
}

func TestMoves_DrainingReceiver(t *testing.T) {
	testkit.CheckLeaks(t)
	a, b := newHost(t), newHost(t)
	w := newWorld(t, never)
	from, to := w.sender(a.address()), w.sender(b.address())
	w.alternative(to)
	st := w.stream(from)
	w.publish(st, 10)
	a.take(1)
	a.holds(9)

	a.receiver.Drain()
	a.holds(0)
	a.settle(1)
	require.Zero(t, w.moved(1).Repeats)
	b.handle(9)
	require.Equal(t, numbers(2, 10), b.ids())
	w.drain(st)
}

func TestMoves_WaitForRoomMovesToo(t *testing.T) {
	testkit.CheckLeaks(t)
	a, b := newHost(t), newHost(t)
	a.gate.pause()
	w := newWorld(t, never)
	w.window = 4
	from, to := w.sender(a.address()), w.sender(b.address())
	st := w.stream(from)
	first, second := w.publishing(st, 6, session.Received), w.publishing(st, 6, session.Handled)
	require.Eventually(t, func() bool { return st.Unsettled() == 4 }, patience, time.Millisecond)

	st.MoveTo(to)
	for range 12 {
		b.handle(1)
	}
	require.NoError(t, testkit.Receive(t, first))
	require.NoError(t, testkit.Receive(t, second))
	require.ElementsMatch(t, numbers(1, 12), b.ids())
	w.drain(st)
}

func TestMoves_AnotherInstanceAtTheSameAddress(t *testing.T) {
	testkit.CheckLeaks(t)
	a := newHost(t)
	w := newWorld(t, never)
	from := w.sender(a.address())
	st := w.stream(from)
	w.publish(st, 10)
	a.handle(2)
	a.take(1)
	require.Eventually(t, func() bool { return st.Unsettled() == 8 }, patience, time.Millisecond)
	a.gate.kill()
	successor := newHostAt(t, a.address())
	successor.handle(8)
	require.Equal(t, numbers(3, 10), successor.marked())
	require.EqualValues(t, 2, successor.got[0].tenure)
	w.drain(st)
}

func TestMoves_ThereAndBack(t *testing.T) {
	testkit.CheckLeaks(t)
	a, b := newHost(t), newHost(t)
	w := newWorld(t, never)
	at := []*sender.Sender{w.sender(a.address()), w.sender(b.address())}
	hosts := []*host{a, b}
	st := w.stream(at[0])
	for i := range 20 {
		w.publish(st, 10)
		h := hosts[i%2]
		h.handle(4)
		st.MoveTo(at[(i+1)%2])
		m := w.moved(i + 1)
		require.Zero(t, m.Repeats)
	}
	b.member.StopTaking()
	a.handle(20*10 - 20*4)
	w.drain(st)
	seen := map[int]int{}
	for _, id := range append(a.ids(), b.ids()...) {
		seen[id]++
	}
	require.Len(t, seen, 200)
	for id, n := range seen {
		require.Equal(t, 1, n, "message %d", id)
	}
	require.Empty(t, a.marked())
	require.Empty(t, b.marked())
}

func TestMoves_NotWithoutTheFeature(t *testing.T) {
	testkit.CheckLeaks(t)
	a, b := newHost(t), newHost(t)
	w := newWorld(t, -1)
	from, to := w.sender(a.address()), w.sender(b.address())
	w.alternative(to)
	st := w.stream(from)
	w.publish(st, 10)
	a.holds(10)
	st.MoveTo(to)
	a.gate.reset()
	require.Never(t, func() bool { return st.Sender() == to }, 300*time.Millisecond, 10*time.Millisecond)
	a.handle(10)
	w.drain(st)
}
