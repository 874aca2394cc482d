package dispatch

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/flow"
)

func TestMember_NotifyGoesToTheLongestWaiting(t *testing.T) {
	topic, s := newTestTopic()
	var s1, s2, s3 signal
	m1, m2, m3 := topic.Join("g", s1.notify), topic.Join("g", s2.notify), topic.Join("g", s3.notify)
	require.Equal(t, []int{2, 1, 0}, []int{s1.n, s2.n, s3.n}, "they are notified that they are not alone")
	s1, s2 = signal{}, signal{}
	takeNone(t, m2)
	takeNone(t, m2) // waits once
	takeNone(t, m1)
	require.True(t, m3.HasWaiters())
	feed(t, topic, s, 1, 1)
	require.Equal(t, []int{0, 1, 0}, []int{s1.n, s2.n, s3.n}, "one message, one call, to the member that waits longest")
	feed(t, topic, s, 2, 5)
	require.Equal(t, []int{1, 1, 0}, []int{s1.n, s2.n, s3.n})
	require.False(t, m3.HasWaiters())
	d := take(t, m3, 1)
	for seq := uint64(2); seq <= 5; seq++ {
		m3.Settle(take(t, m3, seq))
	}
	takeNone(t, m1)
	m3.Return(d)
	require.Equal(t, []int{2, 1, 0}, []int{s1.n, s2.n, s3.n})
	m1.Settle(take(t, m1, 1))
	takeNone(t, m3)
	takeNone(t, m2)
	takeNone(t, m1)
	feed(t, topic, s, 6, 7)
	require.Equal(t, []int{2, 2, 1}, []int{s1.n, s2.n, s3.n}, "two messages, two calls")
	m2.Settle(take(t, m2, 6))
	m2.Settle(take(t, m2, 7))
	requireFull(t, topic)
}

func TestMember_ExclusiveAndHasWaiters(t *testing.T) {
	topic, _ := newTestTopic()
	var s1 signal
	m1 := topic.Join("g", s1.notify)
	require.True(t, m1.Exclusive())
	require.False(t, m1.HasWaiters())
	topic.Join("other", quiet)
	require.True(t, m1.Exclusive())
	m2 := topic.Join("g", quiet)
	require.False(t, m1.Exclusive())
	require.Equal(t, 1, s1.n)
	takeNone(t, m2)
	require.True(t, m1.HasWaiters())
	m2.Leave()
	require.True(t, m1.Exclusive())
	require.False(t, m1.HasWaiters())
}

// A member that leaves may have been notified of a message: another one has to be notified then.
func TestMember_LeaveHandsTheNotificationOn(t *testing.T) {
	topic, s := newTestTopic()
	var s1, s2 signal
	m1, m2 := topic.Join("g", s1.notify), topic.Join("g", s2.notify)
	takeNone(t, m1)
	takeNone(t, m2)
	s1, s2 = signal{}, signal{}
	feed(t, topic, s, 1, 1)
	require.Equal(t, []int{1, 0}, []int{s1.n, s2.n})
	m1.Leave()
	require.Equal(t, 1, s2.n)
	takeNone(t, m1)
	m2.Settle(take(t, m2, 1))
}

func TestMember_YieldGoesToAnotherMember(t *testing.T) {
	topic, s := newTestTopic()
	var s1, s2 signal
	m1, m2 := topic.Join("g", s1.notify), topic.Join("g", s2.notify)
	feed(t, topic, s, 1, 2)
	d := take(t, m1, 1)
	m2.Settle(take(t, m2, 2))
	takeNone(t, m2)
	s1, s2 = signal{}, signal{}
	m1.Yield(d)
	require.Equal(t, []int{0, 1}, []int{s1.n, s2.n})
	m2.Settle(take(t, m2, 1))
	feed(t, topic, s, 3, 3)
	require.Equal(t, []int{1, 1}, []int{s1.n, s2.n}, "the member waits again")
	m1.Settle(take(t, m1, 3))
	requireFull(t, topic)
}

// A member that closes while its handler runs must not keep what it was notified of, or what was handed to it.
func TestMember_StopTakingLeavesAllToTheOthers(t *testing.T) {
	topic, s := newTestTopic()
	var s1, s2 signal
	m1, m2 := topic.Join("g", s1.notify), topic.Join("g", s2.notify)
	feed(t, topic, s, 1, 2)
	d1, d2 := take(t, m2, 1), take(t, m2, 2)
	takeNone(t, m1)
	require.True(t, m2.HandOver(d1))
	takeNone(t, m2)
	s2 = signal{}
	m1.StopTaking()
	require.Equal(t, 1, s2.n)
	takeNone(t, m1)
	m2.Settle(take(t, m2, 1))
	require.False(t, m2.HandOver(d2))
	takeNone(t, m2)
	m1.Yield() // it gets in line no more
	feed(t, topic, s, 3, 3)
	require.Equal(t, 2, s2.n)
	m2.SettleAll([]Delivery{d2, take(t, m2, 3)})
	m1.Leave()
	requireFull(t, topic)
}

// What a member hands over goes to the longest waiting of the others and to no other, whichever takes first.
func TestMember_HandOverGoesToAWaitingMemberOnly(t *testing.T) {
	topic, s := newTestTopic()
	var s1, s2, s3 signal
	m1, m2, m3 := topic.Join("g", s1.notify), topic.Join("g", s2.notify), topic.Join("g", s3.notify)
	feed(t, topic, s, 1, 1)
	d := take(t, m1, 1)
	require.False(t, d.Redelivered)
	require.False(t, m1.HandOver(d), "no member waits")
	takeNone(t, m1)
	require.False(t, m1.HandOver(d), "no other member waits")
	require.False(t, m1.HasWaiters())
	takeNone(t, m3)
	takeNone(t, m2)
	s1, s2, s3 = signal{}, signal{}, signal{}
	d.Attempt++
	require.True(t, m1.HandOver(d))
	require.Equal(t, []int{0, 0, 1}, []int{s1.n, s2.n, s3.n})
	takeNone(t, m1)
	takeNone(t, m2)
	require.Equal(t, 1, topic.Backlog("g"))
	d = take(t, m3, 1)
	require.True(t, d.Redelivered)
	require.Equal(t, 1, d.Attempt)
	require.True(t, m3.HandOver(d)) // to m1, which waits longer than m2
	m1.Leave()
	require.Equal(t, 1, s2.n)
	d = take(t, m3, 1)
	takeNone(t, m2)
	require.True(t, m3.HandOver(d))
	topic.Drop("g")
	require.Equal(t, seqRange(1, 1), s.reported(), "no member had it")
	requireFull(t, topic)
}

// What comes back from a member that left is marked; what is given for the first time ascends.
func TestMember_FirstDeliveriesAscendWhileMembersLeave(t *testing.T) {
	topic, s := newTestTopic()
	m1, m2 := topic.Join("g", quiet), topic.Join("g", quiet)
	feed(t, topic, s, 1, 6)
	d1, d2 := take(t, m1, 1), take(t, m1, 2)
	require.False(t, take(t, m2, 3).Redelivered)
	m1.Return(d2)
	m1.Return(d1)
	m1.Leave()
	m3 := topic.Join("g", quiet)
	require.True(t, take(t, m3, 1).Redelivered)
	require.True(t, take(t, m2, 2).Redelivered)
	for seq := uint64(4); seq <= 6; seq++ {
		require.False(t, take(t, m3, seq).Redelivered)
	}
}

// Between HasWaiters and Yield the other member may have left, or have been notified of another message. Then the
// member that yields must be notified of its own message.
func TestMember_YieldWithNoWaiterLeft(t *testing.T) {
	for name, vanish := range map[string]func(*Topic, *source, *Member){
		"it left":          func(_ *Topic, _ *source, m *Member) { m.Leave() },
		"it was woken":     func(topic *Topic, s *source, _ *Member) { feed(t, topic, s, 2, 2) },
		"it was not there": nil,
	} {
		t.Run(name, func(t *testing.T) {
			topic, s := newTestTopic()
			var s1 signal
			m1, m2 := topic.Join("g", s1.notify), topic.Join("g", quiet)
			feed(t, topic, s, 1, 1)
			d := take(t, m1, 1)
			if vanish != nil {
				takeNone(t, m2)
				require.True(t, m1.HasWaiters())
				vanish(topic, s, m2)
			}
			s1 = signal{}
			m1.Yield(d)
			require.Equal(t, 1, s1.n, "the message is its own again")
			take(t, m1, 1)
		})
	}
}

// A topic that its members have left counts as one that nothing reads: with others of its kind it gets half of the budget.
func TestMember_LeaveMakesTheTopicAbsent(t *testing.T) {
	budget := flow.NewBudget(windowRoom.Bytes)
	topic := NewTopic("topic", flow.NewWindow(windowRoom, budget), sized)
	require.True(t, topic.Initialize("g"))
	m := topic.Join("g", quiet)
	m.Leave()
	m.Leave()
	require.Equal(t, windowRoom.Bytes/2, topic.window.Take(windowRoom).Bytes)
	topic.window.Release(topic.window.Held())
	topic.Join("g", quiet)
	require.Greater(t, topic.window.Take(windowRoom).Bytes, windowRoom.Bytes/2)
}
