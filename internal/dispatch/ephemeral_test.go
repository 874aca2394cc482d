package dispatch

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// What one of several groups has handled when an ephemeral topic ends was not dropped, whichever of them ends last.
func TestEphemeral_WhatOneGroupHandledIsNotDropped(t *testing.T) {
	for name, groups := range map[string][]string{"no groups": {"", ""}, "groups": {"a", "b"}} {
		for last := range 2 {
			t.Run(name, func(t *testing.T) {
				topic, s := newTestTopic()
				dropped := -1
				topic.MakeEphemeral(func(n int) {
					require.Equal(t, []uint64{1, 3, 4}, s.reported(), "before the end")
					dropped = n
				})
				members := []*Member{topic.Join(groups[0], quiet), topic.Join(groups[1], quiet)}
				feed(t, topic, s, 1, 6)
				one, two := members[0], members[1]
				one.Settle(take(t, one, 1))
				two.Settle(take(t, two, 1))
				held := []Delivery{take(t, one, 2), take(t, one, 3), take(t, one, 4)}
				one.Settle(held[1])
				one.Settle(held[2])
				one.Return(held[0])
				require.Equal(t, []uint64{1}, s.reported())
				members[1-last].Leave()
				require.Equal(t, -1, dropped)
				members[last].Leave()
				require.Equal(t, 3, dropped)
				require.Equal(t, []uint64{1, 3, 4}, s.reported())
				requireFull(t, topic)
			})
		}
	}
}
