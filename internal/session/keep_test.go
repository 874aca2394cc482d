package session

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/flow"
)

// A stream ends when it was idle for ForgetAfter, as Tick has seen it, and not before.
func TestClient_ForgetsWhatIsIdleForLong(t *testing.T) {
	p := newPair(t, roomy, muchRoom)
	p.client.cfg.ForgetAfter = 10 * time.Second
	p.connect()
	tick := func(after time.Duration) bool {
		p.now = p.now.Add(after)
		require.NoError(t, p.client.Tick(p.now, late))
		p.flow()
		return p.client.Find("a") != nil
	}
	use := func() {
		p.enqueue("a", 1)
		p.flow()
		in := p.remote.stream("a")
		p.remote.settle(in, in.order...)
		p.flow()
	}
	use()
	require.True(t, tick(time.Second))
	require.True(t, tick(time.Second))
	require.True(t, tick(9*time.Second))
	use()
	require.True(t, tick(time.Second), "it was used meanwhile")
	require.True(t, tick(time.Second))
	require.True(t, tick(9*time.Second))
	o := p.client.Find("a")
	require.False(t, tick(time.Second))
	require.NotContains(t, p.client.inOrder(), o)
}

// How old the oldest message is, is known to a Tick where the stream has held something all the time.
func TestStats_OldestIsKnownToATick(t *testing.T) {
	p := newPair(t, roomy, muchRoom)
	p.client.cfg.Clock = func() time.Time { return p.now }
	began := p.now
	p.enqueue("a", 1)
	p.now = began.Add(10 * time.Second)
	require.NoError(t, p.client.Tick(p.now, late))
	p.now = began.Add(11 * time.Second)
	p.enqueue("a", 1)
	require.True(t, began.Equal(p.client.Stats()[0].Oldest))
	p.client.Find("a").settle(1, 1)
	require.True(t, began.Add(10*time.Second).Equal(p.client.Stats()[0].Oldest))
	p.client.Find("a").settle(2, 2)
	require.Zero(t, p.client.Stats()[0].Oldest)
}

// A stream stands once in the queue of those that have something to send.
func TestClient_QueuesAStreamOnce(t *testing.T) {
	p := newPair(t, roomy, muchRoom)
	p.connect()
	p.enqueue("a", 1)
	p.flow()
	p.enqueue("a", 1)
	p.enqueue("a", 1)
	require.Len(t, p.client.sendQueue, 1)
}

// A call that got a part of what it waited for from the budget, and now waits for room in the window, is called when there is some.
func TestTurn_WaitsForTheWindowAfterTheBudget(t *testing.T) {
	budget := flow.NewBudget(10_000)
	p := newPair(t, Window{Messages: 2, Bytes: 100_000, Budget: budget}, muchRoom)
	p.connect()
	p.flow()
	others := budget.NewAccount(flow.Present)
	held := others.Take(8000, 8000, nil)
	for n := 1; n > 0; held += n {
		n = others.Take(1, 2000, nil)
	}
	turn := NewTurn()
	require.Zero(t, p.enqueueTurn(turn, 2000, 10, 10))
	others.Release(held)
	others.Wake()
	require.True(t, signalled(turn))
	require.Equal(t, 2, p.enqueueTurn(turn, 2000, 10, 10))
	p.flow()
	require.False(t, signalled(turn))
	p.remote.settle(p.remote.stream("a"), 1)
	p.flow()
	require.True(t, signalled(turn))
}

// What is given back or divided is no longer the stream's, and counts as settled neither here nor for those that wait for all of it.
func TestDivide_SettlesElsewhere(t *testing.T) {
	p, o := mover(t, 3)
	require.Equal(t, 4, p.enqueued(o, 4, nil))
	back := &Waiter{Level: Handled, First: 6, Last: 7, Withdrawable: true, Done: make(chan struct{}, 1)}
	flush := &Waiter{Level: Handled, First: 4, Last: 5, Done: make(chan struct{}, 1)}
	p.client.Await(o, back)
	p.client.Await(o, flush)
	require.True(t, p.client.Leave(o, p.now))
	p.client.Withdraw(o)
	require.ErrorIs(t, back.Err, ErrWithdrawn)
	require.Equal(t, 5, o.Pending())
	require.False(t, done(flush))
	to := NewClient(p.client.cfg)
	require.Equal(t, 2, p.client.Divide(o, to, to.StartStream(o.id, 8, "t", false)))
	require.Equal(t, 3, o.Pending())
	require.True(t, done(flush))
	require.Zero(t, p.client.Totals().Settled)
}

// A caller that waits for room of a fetched stream is woken when its connection ends: there is nothing to fetch until the next.
func TestFetched_DisconnectWakes(t *testing.T) {
	p := newPair(t, roomy, muchRoom)
	s := newBacklog(p, 1)
	p.connect()
	s.add(1)
	p.flow()
	_, _, ok := s.o.NextFetch()
	require.True(t, ok)
	room := s.o.Room()
	p.cut()
	select {
	case <-room:
	default:
		t.Fatal("it is not woken")
	}
	_, _, ok = s.o.NextFetch()
	require.False(t, ok)
}

// Output stops at its limit, and says that there is more.
func TestClient_OutputHasALimit(t *testing.T) {
	p := newPair(t, roomy, muchRoom)
	p.connect()
	for _, topic := range []string{"a", "b", "c"} {
		p.enqueue(topic, 1)
	}
	p.flow()
	for _, topic := range []string{"a", "b", "c"} {
		p.enqueue(topic, 100)
		p.client.Find(topic).credit = credit{messages: 10, bytes: 10_000}
	}
	for _, n := range []int{1, 2} {
		_, segments, more := p.client.Output(nil, 100*n)
		require.Len(t, segments, n)
		require.Equal(t, n == 1, more)
	}
}
