package buffstreams

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/policy"
	"github.com/buffstreams/watermill-buffstreams/route"
)

// idleStream is a stream that holds nothing.
type idleStream struct{ stream }

func (idleStream) Unsettled() int { return 0 }

// TestHash_AStreamStaysWhileACallUsesIt, though it holds nothing yet: what the call sends would overtake, or follow, another stream's.
func TestHash_AStreamStaysWhileACallUsesIt(t *testing.T) {
	f := &slotFlow{routedStream: &routedStream{stream: idleStream{}, slot: 3}}
	f.calls.Add(1)
	g := &group{slots: &slots{flows: map[int]*slotFlow{3: f}}, place: new(atomic.Pointer[group])}
	g.place.Store(g)
	(&Publisher{}).tickSlots(g, time.Now())
	require.Equal(t, 1, g.slots.len())
}

// TestHash_MessagesWithoutAKeyBelongToNoSlot: they are shared.
func TestHash_MessagesWithoutAKeyBelongToNoSlot(t *testing.T) {
	g, v := pickers(route.Hash, 2)
	g.hashKey = "k"
	_, more := g.assign(v, append(keyed(make([]string, 100)...), nil))
	require.Len(t, more, 2)
	for _, one := range more {
		require.Equal(t, -1, one.slot)
	}
}

// TestSlots_OfAGroupThatLeftEndWithTheirStreams, and then none begins.
func TestSlots_OfAGroupThatLeftEndWithTheirStreams(t *testing.T) {
	s := &slots{flows: map[int]*slotFlow{3: {}}}
	require.False(t, s.close())
	delete(s.flows, 3)
	require.True(t, s.close())
	s.flows[3] = &slotFlow{}
	require.True(t, s.close(), "it stays so")
}

// TestHash_SlotsBelongToAddressesThatAreReady, of the lowest priority that has one.
func TestHash_SlotsBelongToAddressesThatAreReady(t *testing.T) {
	candidates := make([]policy.Candidate, 5)
	for i := range candidates {
		candidates[i].Priority = []int{1, 1, 1, 2, 0}[i]
		candidates[i].State = []policy.State{policy.Ready, policy.Failed, policy.Ready, policy.Ready, policy.Draining}[i]
	}
	_, members, index := presentMembers(candidates)
	require.Equal(t, []int{0, 2}, index)
	require.Len(t, members, 2)
}

// TestRoute_AnotherSetGoesOnWhereTheLastOneWas: no call waits for first attempts to connect again.
func TestRoute_AnotherSetGoesOnWhereTheLastOneWas(t *testing.T) {
	last := &group{policy: route.RoundRobin, current: policy.None, place: new(atomic.Pointer[group])}
	last.started.Store(true)
	last.turn.Store(7)
	g := &group{policy: route.RoundRobin, current: policy.None}
	g.follow(last)
	require.True(t, g.started.Load())
	require.EqualValues(t, 7, g.turn.Load())
	require.Same(t, last.place, g.place)
}
