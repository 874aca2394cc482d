package dispatch

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// groupSource remembers what groups had settled, and records what they settle alone.
type groupSource struct {
	*source
	knew map[string][]uint64
	part map[string][]uint64
}

func newGroupSource(knew map[string][]uint64) *groupSource {
	return &groupSource{newSource(), knew, map[string][]uint64{}}
}

func (s *groupSource) SettledBy(group string, first, last uint64) {
	s.part[group] = append(s.part[group], seqRange(first, last)...)
}

func (s *groupSource) Remembers() bool { return len(s.knew) > 0 }

func (s *groupSource) Knew(group string, seq uint64) bool {
	return slices.Contains(s.knew[group], seq)
}

// A group does not get again what it had settled in an earlier life. What all have settled, now or then, is reported once.
func TestTopic_GroupsSkipWhatTheyHadSettled(t *testing.T) {
	topic, _ := newTestTopic()
	topic.AckImmediately()
	s := newGroupSource(map[string][]uint64{"fast": {1, 2, 3, 5}, "slow": {2}})
	fast, slow := topic.Join("fast", quiet), topic.Join("slow", quiet)
	feed(t, topic, s, 1, 6)
	fast.Settle(take(t, fast, 4))
	fast.Settle(take(t, fast, 6))
	takeNone(t, fast)
	require.Empty(t, s.reported())
	require.Equal(t, []uint64{4, 6}, s.part["fast"])
	first := take(t, slow, 1)
	third := take(t, slow, 3)
	require.Equal(t, []uint64{2}, s.reported(), "both had settled it")
	slow.Settle(third)
	slow.Settle(first)
	for seq := uint64(4); seq <= 6; seq++ {
		slow.Settle(take(t, slow, seq))
	}
	takeNone(t, slow)
	require.Equal(t, []uint64{2, 3, 1, 4, 5, 6}, s.reported())
	require.Empty(t, s.part["slow"])
	requireFull(t, topic)
}

// The last group that lacked a message is gone in the new life.
func TestTopic_ReportsWhatItsOnlyGroupHadSettled(t *testing.T) {
	topic, _ := newTestTopic()
	topic.AckImmediately()
	s := newGroupSource(map[string][]uint64{"fast": {1, 2}})
	fast := topic.Join("fast", quiet)
	feed(t, topic, s, 1, 2)
	takeNone(t, fast)
	require.Equal(t, seqRange(1, 2), s.reported())
	requireFull(t, topic)

	topic.Initialize("other") // and this one is dropped with messages that it had settled
	s.knew["other"] = []uint64{3}
	feed(t, topic, s, 3, 4)
	topic.Drop("other")
	fast.Settle(take(t, fast, 3))
	fast.Settle(take(t, fast, 4))
	require.Equal(t, seqRange(1, 4), s.reported())
	requireFull(t, topic)
}

// A subscription without a group has no name that it could be known by.
func TestTopic_SubscriptionWithoutAGroupSkipsNothing(t *testing.T) {
	topic, _ := newTestTopic()
	topic.AckImmediately()
	s := newGroupSource(map[string][]uint64{"": {1}, "g": {1}})
	single, g := topic.Join("", quiet), topic.Join("g", quiet)
	feed(t, topic, s, 1, 1)
	takeNone(t, g)
	single.Settle(take(t, single, 1))
	require.Equal(t, seqRange(1, 1), s.reported())
	require.Empty(t, s.part)
}

// A group that takes over what a subscription without a group had left skips what it had settled itself, also when its member drains.
func TestTopic_GroupSkipsWhatItTookOver(t *testing.T) {
	for name, drain := range map[string]bool{"it takes": false, "it drains": true} {
		t.Run(name, func(t *testing.T) {
			topic, _ := newTestTopic()
			topic.AckImmediately()
			s := newGroupSource(map[string][]uint64{"g": {1, 3}})
			s.alone = true
			single := topic.Join("", quiet)
			feed(t, topic, s, 1, 4)
			single.Return(take(t, single, 1), take(t, single, 2))
			single.Leave()
			m := topic.Join("g", quiet)
			next := func() (d Delivery, ok bool) { d, _, ok = m.Take(); return d, ok }
			if drain {
				m.BeginDrain()
				next = func() (Delivery, bool) { return m.TakeUnkept(false) }
			}
			for _, seq := range []uint64{2, 4} {
				d, ok := next()
				require.True(t, ok)
				require.Equal(t, seq, seqOf(d))
				m.Settle(d)
			}
			_, ok := next()
			require.False(t, ok)
			require.Equal(t, []uint64{1, 2, 3, 4}, s.reported())
			m.Leave()
			topic.Close()
		})
	}
}

// What a group has refused, and another group not settled, is not what the group has settled.
func TestTopic_ARefusalIsNoPartOfWhatAGroupSettled(t *testing.T) {
	topic, _ := newTestTopic()
	topic.AckImmediately()
	s := newGroupSource(nil)
	m := topic.Join("g", quiet)
	topic.Initialize("other")
	feed(t, topic, s, 1, 2)
	m.Refuse(take(t, m, 1), Refusal{Reason: "no"})
	m.Settle(take(t, m, 2))
	require.Equal(t, []uint64{2}, s.part["g"])
}

// What a group had settled is asked only where acks are reported at once: else it may have come again.
func TestTopic_SkipsNothingWhereAcksMayBeLate(t *testing.T) {
	topic, _ := newTestTopic()
	m := topic.Join("g", quiet)
	feed(t, topic, newGroupSource(map[string][]uint64{"g": {1}}), 1, 1)
	m.Settle(take(t, m, 1))
	requireFull(t, topic)
}

// A copy of a message has had as many attempts as the message.
func TestRemainder_KeepsAttempts(t *testing.T) {
	topic, s := newTestTopic()
	m := topic.Join("", quiet)
	feed(t, topic, s, 1, 1)
	d := take(t, m, 1)
	d.Attempt = 2
	m.Return(d)
	m.Leave()
	for range 2 {
		require.Equal(t, 2, take(t, topic.Join("", quiet), 1).Attempt)
	}
	topic.Close()
}
