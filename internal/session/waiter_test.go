package session

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/wire"
)

func TestWaiter_FinishesExactlyWhenItsMessagesHaveComeSoFar(t *testing.T) {
	p := newPair(t, roomy, muchRoom)
	p.remote.manual = true
	p.connect()
	p.enqueue("a", many(6)...)
	received := []*Waiter{p.wait("a", Received, 1, 2), p.wait("a", Received, 3, 4), p.wait("a", Received, 5, 6)}
	handled := []*Waiter{p.wait("a", Handled, 1, 2), p.wait("a", Handled, 3, 4), p.wait("a", Handled, 2, 5)}
	finished := func() (out []bool) {
		for _, w := range append(received, handled...) {
			out = append(out, len(w.Done) == 1)
			require.NoError(t, w.Err)
		}
		return out
	}
	s := p.remote.stream("a")
	for i, step := range []struct {
		do   func()
		want []bool
	}{
		{func() {}, []bool{false, false, false, false, false, false}},
		{func() { p.remote.grant(s, Amount{Messages: 1, Bytes: 100}) }, []bool{false, false, false, false, false, false}},
		{func() { p.remote.grant(s, Amount{Messages: 2, Bytes: 100}) }, []bool{true, false, false, false, false, false}},
		{func() { p.remote.settle(s, 2) }, []bool{true, false, false, false, false, false}},
		{func() { p.remote.settle(s, 1) }, []bool{true, false, false, true, false, false}},
		{func() { p.remote.grant(s, Amount{Messages: 3, Bytes: 100}) }, []bool{true, true, true, true, false, false}},
		{func() { p.remote.settle(s, 4, 5) }, []bool{true, true, true, true, false, false}},
		{func() { p.remote.settle(s, 3) }, []bool{true, true, true, true, true, true}},
	} {
		step.do()
		p.flow()
		require.Equal(t, step.want, finished(), "step %d", i)
	}
}

func TestWaiter_FinishesAtOnceForWhatHasHappened(t *testing.T) {
	p := newPair(t, roomy, muchRoom)
	p.connect()
	p.enqueue("a", many(6)...)
	p.flow()
	require.True(t, done(p.wait("a", Received, 1, 6)))
	p.remote.settle(p.remote.stream("a"), 2, 3)
	p.flow()
	require.True(t, done(p.wait("a", Handled, 2, 3)))
	require.False(t, done(p.wait("a", Handled, 1, 3)))
}

func TestWaiter_OutlivesConnections(t *testing.T) {
	p := newPair(t, roomy, muchRoom)
	p.enqueue("a", many(6)...)
	received, handled := p.wait("a", Received, 1, 6), p.wait("a", Handled, 1, 6)
	p.connect()
	p.output()
	p.cut()
	require.False(t, done(received))
	p.connect()
	p.flow()
	require.True(t, done(received))
	p.cut()
	p.remote.restart(false)
	require.False(t, done(handled))
	p.connect()
	p.flow()
	s := p.remote.stream("a")
	p.remote.settle(s, upTo(6)...)
	p.flow()
	require.True(t, done(handled))
	require.NoError(t, handled.Err)
}

// A restarted receiver never gets what was settled before: a waiter for it must not wait for ever.
func TestWaiter_ReceivedPassesWhatTheRestartedReceiverNeedsNoMore(t *testing.T) {
	p := newPair(t, roomy, muchRoom)
	p.connect()
	p.enqueue("a", many(10)...)
	p.flow()
	s := p.remote.stream("a")
	p.remote.settle(s, upTo(10, 1)...)
	p.flow()
	p.cut()
	p.remote.restart(false)
	w := p.wait("a", Received, 10, 10)
	p.connect()
	p.flow()
	require.Equal(t, []uint64{1}, s.order)
	require.Zero(t, p.client.Unreceived())
	require.True(t, done(w))
}

func TestWaiter_GetsTheRejectionsOfItsMessages(t *testing.T) {
	p := newPair(t, roomy, muchRoom)
	p.connect()
	p.enqueue("a", many(6)...)
	p.flow()
	s := p.remote.stream("a")
	touched, apart := p.wait("a", Handled, 1, 3), p.wait("a", Handled, 4, 6)
	p.remote.reject(s, 2)
	p.flow()
	require.False(t, done(touched), "the others are not handled yet")
	p.remote.settle(s, 1, 3, 4, 5, 6)
	p.flow()
	require.True(t, done(touched))
	var refused *PeerError
	require.ErrorAs(t, touched.Err, &refused)
	require.Equal(t, wire.Code_CODE_UNDECODABLE, refused.code)
	require.Equal(t, "rejected", refused.Reason)
	require.True(t, done(apart))
	require.NoError(t, apart.Err)
	require.Len(t, p.refused, 1)
}

func TestWaiter_ExpiresAndCanBeCancelled(t *testing.T) {
	p := newPair(t, roomy, muchRoom)
	p.connect()
	p.enqueue("a", many(2)...)
	o := p.client.Stream("a")
	var ws []*Waiter
	for _, level := range []Level{Received, Handled} {
		for _, after := range []time.Duration{0, time.Second, 2 * time.Second} {
			w := &Waiter{Level: level, First: 1, Last: 2, Done: make(chan struct{}, 1)}
			if after > 0 {
				w.Deadline = p.now.Add(after)
			}
			p.client.Await(o, w)
			ws = append(ws, w)
		}
	}
	require.NoError(t, p.client.Tick(p.now.Add(time.Second), late))
	for _, w := range ws {
		require.False(t, done(w), "a deadline that is now has not passed")
	}
	require.NoError(t, p.client.Tick(p.now.Add(1500*time.Millisecond), late))
	for i, w := range ws {
		require.Equal(t, i%3 == 1, done(w))
	}
	require.ErrorIs(t, ws[1].Err, errLate)
	require.ErrorIs(t, ws[4].Err, errLate)
	o.Cancel(ws[0])
	o.Cancel(ws[0])
	o.Cancel(ws[1])
	require.True(t, done(ws[0]))
	require.ErrorIs(t, ws[0].Err, context.Canceled)
	require.False(t, done(ws[0]), "once")
	require.False(t, done(ws[1]), "once")
	p.flow()
	p.remote.settle(p.remote.stream("a"), 1, 2)
	p.flow()
	require.True(t, done(ws[2]) && done(ws[3]) && done(ws[5]), "the others go on")
	for _, w := range ws {
		require.False(t, done(w), "no waiter is finished twice")
	}
}

func TestClient_AbortFinishesEveryWaiter(t *testing.T) {
	errOver := errors.New("over")
	p := newPair(t, Window{Messages: 2, Bytes: 1000}, muchRoom)
	p.connect()
	require.Equal(t, 2, p.enqueue("a", many(5)...))
	received, handled := p.wait("a", Received, 1, 2), p.wait("a", Handled, 1, 2)
	o := p.client.Stream("a")
	room := o.Room()
	p.client.Abort(errOver)
	<-room
	require.True(t, done(received) && done(handled))
	require.ErrorIs(t, received.Err, errOver)
	require.ErrorIs(t, handled.Err, errOver)
	var b Batch
	add(t, &b, nil)
	n, _, err := p.client.Enqueue(o, &b, 0, nil)
	require.Zero(t, n)
	require.ErrorIs(t, err, errOver)
	late := p.wait("a", Handled, 1, 1)
	require.True(t, done(late))
	require.ErrorIs(t, late.Err, errOver)
	require.ErrorIs(t, o.Err(), errOver)
	control, segments, more := p.client.Output(nil, 1<<20)
	require.Empty(t, control)
	require.Empty(t, segments)
	require.False(t, more)
	require.False(t, p.client.Established())
}

// A wait that ends with an error names the messages that have not reached its level, and no others.
func TestWaiter_NamesWhatIsLacking(t *testing.T) {
	p := newPair(t, roomy, muchRoom)
	p.remote.manual = true
	p.connect()
	p.enqueue("a", many(8)...)
	received, handled := p.wait("a", Received, 2, 8), p.wait("a", Handled, 2, 8)
	p.flow()
	s := p.remote.stream("a")
	p.remote.grant(s, Amount{Messages: 5, Bytes: 1000})
	p.flow()
	p.remote.settle(s, 1, 3)
	p.remote.reject(s, 4)
	p.flow()
	p.client.Stream("a").Cancel(received)
	p.client.Stream("a").Cancel(handled)
	require.Equal(t, []Range{{First: 4, Last: 4}, {First: 6, Last: 8}}, received.Lacking)
	require.Equal(t, []Range{{First: 2, Last: 2}, {First: 4, Last: 4}, {First: 5, Last: 8}}, handled.Lacking)
}
