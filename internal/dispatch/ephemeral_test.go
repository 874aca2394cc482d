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

// endingTopic is an ephemeral topic, and how many messages it has dropped: -1 before its end.
func endingTopic() (topic *Topic, s *source, dropped *int) {
	topic, s = newTestTopic()
	dropped = new(int)
	*dropped = -1
	topic.MakeEphemeral(func(n int) { *dropped = n })
	return topic, s, dropped
}

// What a group has refused when an ephemeral topic ends was refused: it is not gone with the topic.
func TestEphemeral_WhatOneGroupRefusedIsNotDropped(t *testing.T) {
	topic, s, dropped := endingTopic()
	one, two := topic.Join("a", quiet), topic.Join("b", quiet)
	feed(t, topic, s, 1, 3)
	one.Refuse(take(t, one, 1), Refusal{Reason: "nacked"})
	one.Settle(take(t, one, 2))
	two.Return(take(t, two, 1))
	one.Leave()
	two.Leave()
	require.Equal(t, 1, *dropped)
	require.Equal(t, map[uint64][]Refusal{1: {{Reason: "nacked"}}}, s.refused)
	require.Equal(t, map[uint64]int{2: 1}, s.settled)
	requireFull(t, topic)
}

// A member of a group that was dropped may have a message that other groups have handled: the topic ends when it has answered.
func TestEphemeral_EndsAfterTheMembersOfADroppedGroup(t *testing.T) {
	for name, answer := range map[string]func(*Member, Delivery){
		"acks": (*Member).Settle, "gives back": func(m *Member, d Delivery) { m.Return(d) },
	} {
		t.Run(name, func(t *testing.T) {
			topic, s, dropped := endingTopic()
			stuck, prompt := topic.Join("stuck", quiet), topic.Join("", quiet)
			feed(t, topic, s, 1, 1)
			held := take(t, stuck, 1)
			prompt.Settle(take(t, prompt, 1))
			topic.Drop("stuck")
			prompt.Leave()
			require.Equal(t, -1, *dropped, "the message is handled, and its source does not know that")
			answer(stuck, held)
			require.Equal(t, []uint64{1}, s.reported())
			stuck.Leave()
			require.Zero(t, *dropped)
			requireFull(t, topic)
		})
	}
}

// What a group had handled in an earlier life is not dropped, whether or not other groups are there.
func TestEphemeral_WhatAGroupHadHandledIsNotDropped(t *testing.T) {
	for name, others := range map[string][]string{"alone": nil, "ends last": {"b"}, "ends first": {"a", "b"}} {
		t.Run(name, func(t *testing.T) {
			topic, _, dropped := endingTopic()
			topic.AckImmediately()
			s := newGroupSource(map[string][]uint64{"fast": {1}})
			members := []*Member{}
			for _, g := range others {
				members = append(members, topic.Join(g, quiet))
			}
			fast := topic.Join("fast", quiet)
			feed(t, topic, s, 1, 2)
			if name == "ends first" {
				takeNone(t, func() *Member { fast.Settle(take(t, fast, 2)); return fast }())
			}
			fast.Leave()
			for _, m := range members {
				m.Leave()
			}
			require.Equal(t, 1, s.settled[1])
			require.Equal(t, 2-len(s.settled), *dropped)
			requireFull(t, topic)
		})
	}
}
