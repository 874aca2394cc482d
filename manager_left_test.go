package buffstreams

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// heldStream is a stream that holds messages for as long as a test says.
type heldStream struct {
	stream
	unsettled int
}

func (s *heldStream) Unsettled() int { return s.unsettled }

// TestLeftBehind_KeepsItsAddressesInUse until each stream of the topic, those of slots too, holds nothing.
func TestLeftBehind_KeepsItsAddressesInUse(t *testing.T) {
	for name, inSlot := range map[string]bool{"a stream of an address": false, "a stream of a slot": true} {
		m := newTestManager(t, ManagerConfig{})
		var all []*address
		for _, at := range []string{"127.0.0.1:1", "127.0.0.1:2"} {
			a, err := m.use(tcp(at))
			require.NoError(t, err)
			all = append(all, a)
		}
		uses := func() []int {
			m.mu.Lock()
			defer m.mu.Unlock()
			return []int{all[0].uses - 1, all[1].uses - 1}
		}
		held, fixed := &heldStream{unsettled: 1}, &heldStream{unsettled: 1}
		g := &group{slots: &slots{}}
		targets := []*target{
			{addr: all[0]},
			{addr: all[1]},
			{addr: all[0], fixed: &routedStream{stream: fixed}},
			{}, // of the plain wire
		}
		if f := (&routedStream{stream: held}); inSlot {
			g.slots.flows = map[int]*slotFlow{3: {routedStream: f}}
		} else {
			targets[1].main.Store(f)
		}
		s := &topicState{}
		s.resolved.Store(&resolved{groups: []*group{g}, targets: targets})
		left := s.leavesLocked()
		require.Equal(t, []stream{held}, left.streams, name)
		m.keep([]leftBehind{left})
		require.Equal(t, []int{1, 1}, uses(), name)
		m.tick(time.Now())
		require.Equal(t, []int{1, 1}, uses(), name)
		held.unsettled = 0
		m.keep([]leftBehind{left}) // it holds nothing
		require.Len(t, m.left, 1, name)
		m.tick(time.Now())
		require.Equal(t, []int{0, 0}, uses(), name)
		require.Empty(t, m.left, name)
	}
}
