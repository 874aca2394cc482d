package buffstreams

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/acked/sender"
	"github.com/buffstreams/watermill-buffstreams/internal/policy"
	"github.com/buffstreams/watermill-buffstreams/internal/session"
	"github.com/buffstreams/watermill-buffstreams/route"
)

// keyed returns messages that have these values of the metadata key "k", and are called by their place.
func keyed(keys ...string) (all []*message.Message) {
	for i, k := range keys {
		m := message.NewMessage(string(rune('0'+i)), nil)
		m.Metadata.Set("k", k)
		all = append(all, m)
	}
	return all
}

// TestHash_MessagesOfAKeyStayInOnePart of a call: its parts go side by side.
func TestHash_MessagesOfAKeyStayInOnePart(t *testing.T) {
	g, v := pickers(route.Hash, 3)
	g.hashKey = "k"
	one, more := g.assign(v, keyed("a", "b", "a", "c", "b", "a"))
	require.Nil(t, one.target)
	require.Len(t, more, 3)
	for _, p := range more {
		require.True(t, slices.IsSorted(p.index))
		for _, m := range p.messages {
			require.Equal(t, policy.Slot(m.Metadata.Get("k")), p.slot)
		}
	}
}

// TestLeastPending_ACallCountsItsOwnMessages: those of one call are as many at each of two addresses.
func TestLeastPending_ACallCountsItsOwnMessages(t *testing.T) {
	g, v := pickers(route.LeastPending, 2)
	_, more := g.assign(v, make([]*message.Message, 200))
	require.Len(t, more, 2)
	require.Len(t, more[0].messages, 100)
}

// TestFailover_IsWhereItWas: one that was ready for a moment only takes nothing from the one that has its place.
func TestFailover_IsWhereItWas(t *testing.T) {
	g, v := pickers(route.Failover, 2)
	g.current = policy.None
	v.candidates[1].Priority = 1
	v.candidates[0].State = policy.Failed
	require.Equal(t, 1, g.assignAll(v, 1, 0))
	v.candidates[0].State = policy.Ready
	require.Equal(t, 1, g.assignAll(v, 1, 0))
	v.candidates[0].Stable = true
	require.Equal(t, 0, g.assignAll(v, 1, 0))
}

// TestPart_GivesBackWhatItUses, so that addresses and slots end that nothing uses.
func TestPart_GivesBackWhatItUses(t *testing.T) {
	p := newTestPublisher(t, EnvelopeMarshaler{})
	defer func() { _ = p.Close() }()
	a := using(t, p, "127.0.0.1:1")
	g := &group{policy: route.Hash, slots: &slots{}, place: new(atomic.Pointer[group])}
	g.place.Store(g)
	living, left := &target{addr: a, name: "t"}, &target{addr: a, name: "t"}
	left.calls.Store(forgotten)
	none := part{}
	require.False(t, p.attachAll(g, &none, []part{{target: living, slot: 3}, {target: living, slot: -1}, {target: left, slot: -1}}))
	require.Zero(t, living.calls.Load())
	require.Zero(t, g.slots.flows[3].calls.Load())

	one := part{target: living, slot: 3}
	require.True(t, p.attachAll(g, &one, nil))
	require.EqualValues(t, 1, g.slots.flows[3].calls.Load())
	one.detach()
	require.Zero(t, living.calls.Load())
	require.Zero(t, g.slots.flows[3].calls.Load())
}

// using returns an address with one use.
func using(t *testing.T, p *Publisher, address string) *address {
	t.Helper()
	a, err := p.manager.use(tcp(address))
	require.NoError(t, err)
	return a
}

// TestRoutedStream_HasOneUseOfOneAddress, wherever it is, until it ends.
func TestRoutedStream_HasOneUseOfOneAddress(t *testing.T) {
	p := newTestPublisher(t, EnvelopeMarshaler{})
	defer func() { _ = p.Close() }()
	a, b := using(t, p, "127.0.0.1:1"), using(t, p, "127.0.0.1:2")
	uses := func() []int {
		p.manager.mu.Lock()
		defer p.manager.mu.Unlock()
		return []int{a.uses - 1, b.uses - 1}
	}
	g := &group{place: new(atomic.Pointer[group])}
	g.place.Store(g)
	t1 := &target{addr: a, name: "t"}
	f := p.flow(g, t1)
	require.Equal(t, []int{1, 0}, uses())
	p.moved(f, sender.Moved{From: a.sender, To: b.sender})
	require.Equal(t, []int{0, 1}, uses())

	next := p.flow(g, t1)
	require.NotSame(t, f, next, "what is sent to an address goes to a stream that is there")
	require.Contains(t, t1.flows(), f, "what has moved away is still looked after")
	require.Equal(t, []int{1, 1}, uses())
	require.False(t, p.reap(t1))
	require.Equal(t, []int{1, 0}, uses(), "it holds nothing")
	p.endFlow(next)
	require.Equal(t, []int{0, 0}, uses())
}

// TestAddress_IsNotStableAfterItFailed, though it was before.
func TestAddress_IsNotStableAfterItFailed(t *testing.T) {
	m, s, _ := newPair(t, AckedConfig{})
	a := m.addressOf(s)
	s.Dial()
	require.Eventually(t, func() bool { return a.ready.Load() != 0 }, 30*time.Second, time.Millisecond)
	later := time.Now().Add(stableAfter)
	require.False(t, a.stable(time.Now()))
	require.True(t, a.stable(later.Add(time.Second)))
	require.NoError(t, m.CloseListener(t.Context(), anyPort.Address))
	require.Eventually(t, func() bool { return a.state() == policy.Failed && !a.stable(later.Add(time.Minute)) }, 30*time.Second, time.Millisecond)
}

// TestRoute_AnotherSetHasWhatTheLastOneHolds: its slots, its place in Failover, and what was said of it.
func TestRoute_AnotherSetHasWhatTheLastOneHolds(t *testing.T) {
	a, b := &address{}, &address{}
	last := &group{
		targets: []*target{{addr: a}, {addr: b}}, current: 1, place: new(atomic.Pointer[group]), slots: &slots{}, groupsSaid: &groupsSaid{},
		identity: newIdentity(),
	}
	g := &group{targets: []*target{{addr: b}, {addr: a}}, current: policy.None, slots: &slots{}}
	g.follow(last)
	require.Same(t, last.slots, g.slots)
	require.Same(t, last.groupsSaid, g.groupsSaid)
	require.Equal(t, last.identity, g.identity)
	require.Zero(t, g.current, "what is at b stays there")
}

// TestCallWait_HasNoTimeLeft is not that there is no bound.
func TestCallWait_HasNoTimeLeft(t *testing.T) {
	w := &callWait{timeout: time.Second, deadline: time.Now().Add(-time.Second)}
	require.Positive(t, w.left())
	require.Less(t, w.left(), time.Second)
	require.Zero(t, (&callWait{}).left())
}

// TestVerdict_AccountsForEachMessageOfAPart, by its place in the call.
func TestVerdict_AccountsForEachMessageOfAPart(t *testing.T) {
	one := part{target: &target{}, messages: keyed("a", "b", "c", "d"), index: []int{1, 2, 4, 5}}
	var v verdict
	v.note(6, &one, sendResult{
		enqueued: 3, lacking: []session.Range{{First: 1, Last: 1}}, missing: []session.Range{{First: 2, Last: 2}}, err: errors.New("no"),
	})
	require.Equal(t, []fate{arrived, arrived, unknown, arrived, notSent, notSent}, v.fates)
}

// TestSendAgain_HasTheTimeOfTheCall, and accounts for what it cannot send in that.
func TestSendAgain_HasTheTimeOfTheCall(t *testing.T) {
	p := newTestPublisher(t, EnvelopeMarshaler{})
	defer func() { _ = p.Close() }()
	p.cfg.PublishTimeout, p.cfg.Confirm = time.Hour, ConfirmReceived
	for name, c := range map[string]struct {
		waits bool // until an address is ready
		fate  func(sendResult) []session.Range
	}{
		"nowhere to send it":       {true, func(r sendResult) []session.Range { return r.missing }},
		"nothing takes it in time": {false, func(r sendResult) []session.Range { return r.lacking }},
	} {
		t.Run(name, func(t *testing.T) {
			s := p.state(name)
			g := &group{place: new(atomic.Pointer[group]), dynamic: c.waits, policy: route.RoundRobin, identity: newIdentity()}
			g.targets = []*target{{addr: using(t, p, "127.0.0.1:1"), topic: name, name: "t", Member: route.Member{Attributes: route.Attributes{Weight: 1}}}}
			g.place.Store(g)
			g.started.Store(true)
			w := p.newCallWait(s, nil)
			done := make(chan sendResult, 1)
			go func() { // ends with the call, which has no time left
				one := part{target: g.targets[0], slot: -1, messages: keyed("a", "b", "c")}
				back := &sender.WithdrawnError{Messages: []session.Range{{First: 1, Last: 2}}, Deadline: time.Now().Add(10 * time.Millisecond)}
				done <- p.sendAgain(w, g, &one, sendResult{enqueued: 3}, back)
			}()
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			select {
			case got := <-done:
				require.ErrorIs(t, got.err, ErrTimeout)
				require.Equal(t, []session.Range{{First: 1, Last: 1}, {First: 2, Last: 2}}, c.fate(got))
			case <-ctx.Done():
				require.Fail(t, "it takes as long as a call of its own")
			}
		})
	}
}

// TestTopicState_StaysWhileASlotHoldsMessages, and Close tells of them.
func TestTopicState_StaysWhileASlotHoldsMessages(t *testing.T) {
	p := newTestPublisher(t, EnvelopeMarshaler{})
	p.cfg.Resolver = route.Static{"*": {Addresses: []string{"127.0.0.1:1", "127.0.0.1:2"}, Policy: route.Hash, HashKey: "k"}}
	require.NoError(t, p.Publish("orders", keyed("a")...))
	s := p.state("orders")
	pass(t, p, 1000)
	require.Less(t, len(p.topics), 300)
	require.Same(t, s, p.state("orders"))
	var lost *UndeliveredError
	require.ErrorAs(t, p.Close(), &lost)
	require.Equal(t, 1, lost.Count)
}

// TestHash_AStreamGoesToTheOwnerOfItsSlot when its address takes nothing: it would only have to move once more.
func TestHash_AStreamGoesToTheOwnerOfItsSlot(t *testing.T) {
	g := &group{policy: route.Hash, place: new(atomic.Pointer[group])}
	g.place.Store(g)
	for range 3 {
		m, s, _ := newPair(t, AckedConfig{})
		a := m.addressOf(s)
		s.Dial()
		require.Eventually(t, func() bool { return a.state() == policy.Ready }, 30*time.Second, time.Millisecond)
		member := route.Member{Address: formatAddress(a.target), Attributes: route.Attributes{Weight: 1}}
		g.targets = append(g.targets, &target{addr: a, Member: member})
	}
	owners := g.ownersOf(g.candidates(time.Now()))
	for slot, at := range owners.of {
		f := &routedStream{group: g, slot: slot}
		f.addr.Store(&address{})
		require.Same(t, g.targets[at].addr.sender, f.alternative())
	}
}

// TestRoute_ACallLooksAgainWhenAFirstAttemptHadItsTime: what is known says that it is fresh until an address, or the time of a tick,
// changes.
func TestRoute_ACallLooksAgainWhenAFirstAttemptHadItsTime(t *testing.T) {
	p := newTestPublisher(t, EnvelopeMarshaler{})
	defer func() { _ = p.Close() }()
	a := using(t, p, "127.0.0.1:1")
	a.made = time.Now().Add(2*time.Second - freshFor) // in which it is looked at first
	g := &group{policy: route.RoundRobin, targets: []*target{{addr: a}}, place: new(atomic.Pointer[group])}
	v := p.view(g)
	again, err := p.awaitReady(p.newCallWait(p.state("t"), nil), g, v)
	require.NoError(t, err)
	require.Nil(t, again)
	require.NotSame(t, v, p.view(g))
}
