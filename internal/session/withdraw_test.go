package session

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// enqueued adds n messages to a stream for a caller whose turn it is, which may be nil, and returns how many were taken.
func (p *pair) enqueued(o *Outbound, n int, turn *Turn) int {
	p.t.Helper()
	var b Batch
	for i := range n {
		add(p.t, &b, content("t", o.next+uint64(i), 10))
	}
	taken, _, err := p.client.Enqueue(o, &b, 0, turn)
	require.NoError(p.t, err)
	return taken
}

// TestWithdraw_WakesWhoWaitsForRoom, though no room comes: what they have goes elsewhere.
func TestWithdraw_WakesWhoWaitsForRoom(t *testing.T) {
	p, o := mover(t, 3)
	o.window.Messages = 3
	turn := NewTurn()
	require.Zero(t, p.enqueued(o, 1, turn))
	require.Empty(t, turn.Ready)
	require.True(t, p.client.Leave(o, p.now))
	p.client.Withdraw(o)
	require.Len(t, turn.Ready, 1)
}

// TestWithdraw_WakesACallOfWhichTheRestWasSent, so that what came back does not wait for the handlers of the rest.
func TestWithdraw_WakesACallOfWhichTheRestWasSent(t *testing.T) {
	p, o := mover(t, 3)
	require.Equal(t, 2, p.enqueued(o, 2, nil))
	woken := make(chan struct{}, 1)
	w := &Waiter{Level: Handled, First: 2, Last: 5, Withdrawable: true, Done: make(chan struct{}, 1), Woken: woken}
	p.client.Await(o, w)
	require.True(t, p.client.Leave(o, p.now))
	p.client.Withdraw(o)
	require.Len(t, woken, 1)
	require.Equal(t, Range{First: 4, Last: 5}, w.Back)
	require.Empty(t, w.Done, "it waits for 2 and 3")
}

// TestWithdraw_GivesBackWhatWasNeverSent: neither to the present receiver nor to an earlier one, which may have it.
func TestWithdraw_GivesBackWhatWasNeverSent(t *testing.T) {
	for name, c := range map[string]struct {
		first, last uint64
		back        Range // zero: it waits for all
		waits       bool
	}{
		"all was sent":         {first: 1, last: 3, waits: true},
		"the last was not":     {first: 2, last: 4, back: Range{First: 4, Last: 4}, waits: true},
		"the first was not":    {first: 4, last: 4},
		"nothing of it was":    {first: 4, last: 5},
		"an earlier one had 3": {first: 3, last: 5, back: Range{First: 4, Last: 5}, waits: true},
	} {
		p, o := mover(t, 3)
		require.Equal(t, 2, p.enqueued(o, 2, nil), name)
		o.lapse(nil, 0)
		o.sentTo = 2 // as the first was sent again
		w := &Waiter{Level: Handled, First: c.first, Last: c.last, Withdrawable: true, Done: make(chan struct{}, 1)}
		p.client.Await(o, w)
		p.client.Withdraw(o)
		require.Empty(t, w.Done, "it does not leave: %s", name)
		require.True(t, p.client.Leave(o, p.now), name)
		p.client.Withdraw(o)
		require.Equal(t, c.waits, len(w.Done) == 0, name)
		require.Equal(t, c.back, w.Back, name)
		if c.waits {
			require.Equal(t, min(3, c.last), w.Last, name)
		}
		require.Equal(t, 5-max(0, int(c.last)-3), o.Pending(), name)
	}
}

// TestDivide_LeavesWhatACallerHas: that comes back to it, and would come twice.
func TestDivide_LeavesWhatACallerHas(t *testing.T) {
	p, o := mover(t, 3)
	require.Equal(t, 2, p.enqueued(o, 2, nil))
	require.True(t, p.client.Leave(o, p.now))
	require.Equal(t, 2, p.enqueued(o, 2, nil))
	p.client.Await(o, &Waiter{Level: Handled, First: 6, Last: 7, Withdrawable: true, Done: make(chan struct{}, 1)})
	to := NewClient(p.client.cfg)
	into := to.StartStream(o.id, 8, "t", false)
	require.Equal(t, 2, p.client.Divide(o, to, into), "4 and 5")
	require.Equal(t, 2, into.Pending())
	require.Equal(t, 5, o.Pending())
	require.Zero(t, p.client.Divide(o, to, into))
}

// TestMove_WhatTheLastReceiverHadCountsNoMore: neither Flush nor ConfirmReceived may go by it.
func TestMove_WhatTheLastReceiverHadCountsNoMore(t *testing.T) {
	p, o := mover(t, 3)
	require.NoError(t, p.sayAck(AckFrame{Handle: o.handle, Next: 4}))
	require.Zero(t, o.Unreceived())
	p.client.Disconnect()
	p.client.Refuse()
	p.client.Detach(o)
	require.Equal(t, 3, o.Unreceived())
}
