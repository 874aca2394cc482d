package session

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/flow"
	"github.com/buffstreams/watermill-buffstreams/internal/wire"
)

// What was sent, settled and refused is counted, and what one topic's frames have settled is one run.
func TestTotals_CountEachMessage(t *testing.T) {
	p := newPair(t, roomy, muchRoom)
	p.client.cfg.Clock, p.client.counting.observe = func() time.Time { return p.now }, true
	p.connect()
	p.enqueue("a", 100, 100, 100)
	p.enqueue("b", 10)
	p.flow()
	a, b := p.remote.stream("a"), p.remote.stream("b")
	p.remote.settle(a, 1)
	p.flow()
	p.remote.settle(a, 2)
	p.flow()
	p.remote.reject(a, 3)
	p.flow()
	p.remote.settle(b, 1)
	p.flow()
	bytes := 0
	for _, s := range p.published {
		bytes += len(s.Body)
	}
	require.Equal(t, Totals{Sent: 4, SentBytes: uint64(bytes), Settled: 4, Refused: 1}, p.client.Totals())
	runs := p.client.SettledRuns()
	require.Len(t, runs, 2)
	require.Equal(t, []any{"a", uint64(3), "b", uint64(1)}, []any{runs[0].Topic, runs[0].Messages, runs[1].Topic, runs[1].Messages})
	require.Equal(t, 3*EncodedSize(100), runs[0].Bytes)
	require.True(t, p.now.Equal(runs[0].Oldest))
	require.Empty(t, p.client.SettledRuns())
}

// The call that waits longest is found, whatever it waits for, and how many wait.
func TestLongestWait_IsThatOfAnyCall(t *testing.T) {
	p := newPair(t, Window{Messages: 2, Bytes: 10_000}, muchRoom)
	began := p.now
	tick := func() {
		require.NoError(t, p.client.Tick(p.now, late))
		p.now = p.now.Add(time.Second)
	}
	longest := func() (topic string, since time.Duration, calls int) {
		o, at, calls := p.client.LongestWait()
		if o == nil {
			return "", 0, calls
		}
		return o.Topic, at.Sub(began), calls
	}
	check := func(topic string, since time.Duration, calls int) {
		t.Helper()
		tick()
		gotTopic, gotSince, gotCalls := longest()
		require.Equal(t, []any{topic, since, calls}, []any{gotTopic, gotSince, gotCalls})
	}
	check("", 0, 0)
	require.False(t, p.client.Busy())
	p.enqueue("a", 1, 1)
	p.enqueue("b", 1, 1)
	p.enqueue("c", 1)
	turn := NewTurn()
	require.Zero(t, p.enqueueTurn(turn, 1))
	check("a", time.Second, 1)
	require.True(t, p.client.Busy())
	handled := p.wait("b", Handled, 1, 2)
	received := p.wait("c", Received, 1, 1)
	check("a", time.Second, 3)
	p.client.Find("a").Leave(turn)
	check("b", 2*time.Second, 2)
	p.client.Find("b").Cancel(handled)
	check("c", 2*time.Second, 1)
	p.wait("c", Received, 1, 1)
	p.client.Find("c").Cancel(received)
	check("c", 2*time.Second, 1)
	p.client.Interrupt(errLate)
	check("", 0, 0)
}

// Whatever ends a wait, it ends once: what comes later finds nothing that waits.
func TestWaiter_IsFinishedOnce(t *testing.T) {
	for name, end := range map[string]func(p *pair, o *Outbound){
		"interrupted": func(p *pair, _ *Outbound) { p.client.Interrupt(errLate) },
		"aborted":     func(p *pair, _ *Outbound) { p.client.Abort(errLate) },
		"failed":      func(_ *pair, o *Outbound) { o.fail(errLate) },
		"released": func(p *pair, o *Outbound) {
			require.True(p.t, p.client.ReleaseDelivered(errLate))
			require.ErrorIs(p.t, o.Err(), errLate)
			require.Empty(p.t, o.waitHandled)
		},
	} {
		t.Run(name, func(t *testing.T) {
			budget := flow.NewBudget(1 << 20)
			p := newPair(t, Window{Messages: 10, Bytes: 1 << 20, Budget: budget}, muchRoom)
			p.connect()
			p.enqueue("a", 1)
			p.flow()
			o := p.client.Find("a")
			w := p.wait("a", Handled, 1, 1)
			v := &Waiter{Level: Received, First: 1, Last: 1, Done: make(chan struct{}, 1)}
			o.waitReceived = append(o.waitReceived, v)
			end(p, o)
			require.Len(t, w.Done, 1)
			require.Empty(t, append(o.waitReceived, o.waitHandled...), "to finish it again would block")
			p.client.Abort(errLate)
			p.client.Abort(errLate)
			require.Len(t, w.Done, 1)
			require.Len(t, v.Done, 1)
			require.Empty(t, append(o.waitReceived, o.waitHandled...))
			require.Empty(t, p.client.released)
			require.Equal(t, 1<<20, budget.Free())
		})
	}
}

// A stream that ends, and a call that gives up, hold up no other that waits for the budget.
func TestTurn_EndedOneHoldsUpNoOther(t *testing.T) {
	for name, end := range map[string]func(o *Outbound, turn *Turn){
		"the stream ends":   func(o *Outbound, _ *Turn) { o.fail(errLate) },
		"the call gives up": func(o *Outbound, turn *Turn) { o.Leave(turn) },
	} {
		t.Run(name, func(t *testing.T) {
			budget := flow.NewBudget(10_000)
			p := newPair(t, Window{Messages: 100, Bytes: 100_000, Budget: budget}, muchRoom)
			p.connect()
			p.flow()
			stuck := budget.NewAccount(flow.Present)
			require.NotZero(t, stuck.Take(8000, 8000, nil))
			large, other := NewTurn(), 0
			require.Zero(t, p.enqueueTurn(large, 5000))
			behind := budget.NewAccount(flow.Present)
			require.Zero(t, behind.Take(1000, 1000, func() { other++ }))
			end(p.client.Find("a"), large)
			require.Equal(t, 1, other)
			require.NotZero(t, behind.Take(1000, 1000, nil))
		})
	}
}

// Callers that wait for room are woken when their stream ends, and when all waits are interrupted.
func TestTurn_IsWokenByTheEnd(t *testing.T) {
	for name, end := range map[string]func(p *pair){
		"interrupted": func(p *pair) { p.client.Interrupt(errLate) },
		"aborted":     func(p *pair) { p.client.Abort(errLate) },
		"refused": func(p *pair) {
			require.NoError(p.t, p.say(&wire.Frame{Body: &wire.Frame_Reject{Reject: &wire.Reject{Handle: p.client.Find("a").handle}}}))
		},
	} {
		t.Run(name, func(t *testing.T) {
			p, _ := fullPair(t)
			first, large := NewTurn(), NewTurn()
			require.Zero(t, p.enqueueTurn(first, 600))
			require.Zero(t, p.enqueueTurn(large, 1900))
			room := p.client.Find("a").Room()
			end(p)
			require.True(t, signalled(first))
			require.True(t, signalled(large))
			<-room
		})
	}
}
