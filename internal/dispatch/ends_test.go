package dispatch

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/flow"
)

// A stream knows that it is revoked a little before its messages are withdrawn. What was handed to a member that ends meanwhile is
// the sender's again.
func TestMember_WhatWasHandedToItIsReturnedWhenItEnds(t *testing.T) {
	for name, end := range map[string]func(*Topic, Source, *Member){
		"drains":     func(_ *Topic, _ Source, m *Member) { m.BeginDrain() },
		"stops":      func(_ *Topic, _ Source, m *Member) { m.StopTaking() },
		"leaves":     func(_ *Topic, _ Source, m *Member) { m.Leave() },
		"is emptied": func(topic *Topic, s Source, _ *Member) { topic.Withdraw(s) },
	} {
		t.Run(name, func(t *testing.T) {
			topic, _ := newTestTopic()
			r := &revocable{source: newSource()}
			busy, idle := topic.Join("g", quiet), topic.Join("g", quiet)
			feed(t, topic, r, 1, 1)
			d := take(t, busy, 1)
			takeNone(t, idle)
			require.True(t, busy.HandOver(d))
			r.gone = true
			end(topic, r, idle)
			require.Equal(t, seqRange(1, 1), r.returned)
			requireFull(t, topic)
		})
	}
}

// A member that was handed a message is notified of that: the next message is another's.
func TestMember_HandedOneIsNotedAsNotified(t *testing.T) {
	topic, s := newTestTopic()
	var s2, s3 signal
	m1, m2, m3 := topic.Join("g", quiet), topic.Join("g", s2.notify), topic.Join("g", s3.notify)
	feed(t, topic, s, 1, 1)
	d := take(t, m1, 1)
	takeNone(t, m2)
	takeNone(t, m3)
	s2, s3 = signal{}, signal{}
	require.True(t, m1.HandOver(d))
	feed(t, topic, s, 2, 2)
	require.Equal(t, []int{1, 1}, []int{s2.n, s3.n})
}

// What a sender had credit for may come when the topic has ended: its room is free again.
func TestTopic_GivesBackTheRoomOfWhatComesAfterItsEnd(t *testing.T) {
	topic, s := newTestTopic()
	topic.Initialize("g")
	room := flow.Amount{Messages: 2, Bytes: 2 * each}
	require.Equal(t, room, topic.window.Take(room))
	topic.Drop("g")
	require.True(t, topic.Retire())
	topic.Append(s, 1, [][]byte{{1}, {2}}, topicTime, nil)
	requireFull(t, topic)
}

// A topic of which all was withdrawn may be unused, and says so.
func TestWithdraw_MayLeaveATopicUnused(t *testing.T) {
	topic, _ := newTestTopic()
	var unused signal
	topic.OnUnused(unused.notify)
	r := &revocable{source: newSource()}
	topic.Join("", quiet).Leave()
	feed(t, topic, r, 1, 2)
	unused = signal{}
	r.revoke(topic)
	require.Equal(t, 1, unused.n)
	require.True(t, topic.Retire())
}

// What lies between what was given back, what waits for a key and what was never taken comes back as one range.
func TestWithdraw_ReturnsRanges(t *testing.T) {
	topic, _ := newTestTopic()
	r := &revocable{source: newSource()}
	m := topic.Join("g", quiet)
	feed(t, topic, r, 1, 4)
	claim(t, m, takeToClaim(t, m, 1), "k", true)
	claim(t, m, takeToClaim(t, m, 2), "k", false)
	m.Return(claim(t, m, takeToClaim(t, m, 3), "other", true))
	r.revoke(topic)
	require.Equal(t, seqRange(2, 4), r.returned)
	require.Equal(t, 1, r.calls)
}

// What subscriptions without a group have left of a source that is revoked is not given once more.
func TestWithdraw_LeavesNoCopies(t *testing.T) {
	topic, _ := newTestTopic()
	r := &revocable{source: newSource()}
	first, beside := topic.Join("", quiet), topic.Join("", quiet)
	feed(t, topic, r, 1, 1)
	first.Leave()
	beside.Settle(take(t, beside, 1))
	r.revoke(topic)
	beside.Leave()
	takeNone(t, topic.Join("", quiet))

	topic, _ = newTestTopic()
	r = &revocable{source: newSource()}
	topic.Initialize("")
	feed(t, topic, r, 1, 1)
	take(t, topic.Join("", quiet), 1)
	r.revoke(topic)
	takeNone(t, topic.Join("", quiet))
	topic.Close()
}

// What was given once more when the last subscription had ended, and was settled, is not kept for one that comes later.
func TestRemainder_IsNotKeptForTwoEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		topic, s := newTestTopic()
		first, second := topic.Join("", quiet), topic.Join("", quiet)
		feed(t, topic, s, 1, 1)
		first.Leave()
		second.Settle(take(t, second, 1))
		second.Leave()
		third := topic.Join("", quiet)
		require.Equal(t, seqRange(1, 1), takeAll(t, third))
		third.Leave()
		time.Sleep(2 * remainderFor)
		takeNone(t, topic.Join("", quiet))
	})
}

// What one left beside another is kept no longer when that one ends beside a named group: that goes on.
func TestRemainder_EndsBesideANamedGroup(t *testing.T) {
	topic, s := newTestTopic()
	first, second := topic.Join("", quiet), topic.Join("", quiet)
	feed(t, topic, s, 1, 1)
	first.Leave()
	require.NotNil(t, topic.beside.timer)
	topic.Join("g", quiet)
	second.Leave()
	require.Equal(t, remainder{}, topic.beside)
}

// Of two that end together, what the second has held the key of is claimed anew, in the order of the log.
func TestRemainder_KeysOfTheSecondToEndAreClaimedAnew(t *testing.T) {
	topic, s := newTestTopic()
	first, second := topic.Join("", quiet), topic.Join("", quiet)
	feed(t, topic, s, 1, 2)
	takeAll(t, first)
	holder := claim(t, second, takeToClaim(t, second, 1), "k", true)
	claim(t, second, takeToClaim(t, second, 2), "k", false)
	first.BeginDrain()
	second.BeginDrain()
	first.Leave()
	second.Return(holder)
	second.Leave()
	next := topic.Join("g", quiet)
	holder = claim(t, next, takeToClaim(t, next, 1), "k", true)
	claim(t, next, takeToClaim(t, next, 2), "k", false)
	next.Settle(holder)
}

// A topic that has ended gives the budget back what senders had credit for, whether or not they use it.
func TestTopic_EndFreesTheBudget(t *testing.T) {
	for name, end := range map[string]func(*Topic, *Member){
		"closed":    func(topic *Topic, _ *Member) { topic.Close() },
		"ephemeral": func(_ *Topic, m *Member) { m.Leave() },
	} {
		t.Run(name, func(t *testing.T) {
			budget := flow.NewBudget(windowRoom.Bytes)
			topic := NewTopic("topic", flow.NewWindow(windowRoom, budget), sized)
			topic.MakeEphemeral(func(int) {})
			m := topic.Join("", quiet)
			require.NotZero(t, topic.window.Take(flow.Amount{Messages: 2, Bytes: 2 * each}))
			end(topic, m)
			require.Equal(t, windowRoom.Bytes, budget.Free())
		})
	}
}

// A topic that is closed keeps no copies, and no timer for them.
func TestRemainder_EndsWithItsTopic(t *testing.T) {
	topic, s := newTestTopic()
	topic.Initialize("")
	feed(t, topic, s, 1, 1)
	first := topic.Join("", quiet)
	topic.Join("", quiet)
	first.Leave()
	require.NotNil(t, topic.beside.timer)
	require.NotNil(t, topic.union.timer)
	topic.Close()
	require.Equal(t, remainder{}, topic.beside)
	require.Equal(t, remainder{}, topic.union)
}

// A remainder holds no more bytes than a window does either.
func TestRemainder_HoldsAtMostTheBytesOfAWindow(t *testing.T) {
	window := flow.NewWindow(flow.Amount{Messages: 100, Bytes: 3 * each}, flow.NewBudget(windowRoom.Bytes))
	topic, s := NewTopic("topic", window, sized), newSource()
	for next := uint64(1); next < 7; next += 2 {
		stuck, prompt := topic.Join("", quiet), topic.Join("", quiet)
		feed(t, topic, s, next, next+1)
		takeAll(t, prompt)
		stuck.Leave()
		prompt.Leave()
	}
	require.Equal(t, seqRange(4, 6), takeAll(t, topic.Join("", quiet)))
	topic.Close()
}

// A claim that waits for more room gets what there is when the consumers have nothing more to take, and waits again when they have.
func TestMember_HungerServesTheWindow(t *testing.T) {
	topic, s := newTestTopic()
	m := topic.Join("g", quiet)
	last := uint64(windowRoom.Messages - 1)
	feed(t, topic, s, 1, last)
	var got flow.Amount
	claimRoom := func() {
		least, enough := flow.Amount{Messages: 1, Bytes: each}, flow.Amount{Messages: 5, Bytes: 5 * each}
		topic.window.Wait(&flow.Claim{Want: enough, Enough: enough, Least: least, Grant: func(a flow.Amount) { got = a }})
	}
	claimRoom()
	for seq := uint64(1); seq <= last; seq++ {
		take(t, m, seq) // and it is stuck with them
	}
	require.Zero(t, got)
	takeNone(t, m)
	require.Equal(t, 1, got.Messages)
	topic.Append(s, last+1, [][]byte{[]byte("x")}, topicTime, nil)
	d, _, ok := m.Take()
	require.True(t, ok)
	got = flow.Amount{}
	claimRoom()
	m.Settle(d)
	require.Zero(t, got)
}

// Each name counts, and where one ends.
func TestGroupsDigest_TellsNamesApart(t *testing.T) {
	seen := map[uint64][]string{}
	for _, names := range [][]string{{"a"}, {"b"}, {"ab", "c"}, {"a", "bc"}, {"abc"}} {
		topic, _ := newTestTopic(names...)
		require.NotContains(t, seen, topic.GroupsDigest(), "%v: %v", names, seen)
		seen[topic.GroupsDigest()] = names
	}
}

// A claim that comes early keeps its message and no others, as it may wait long.
func TestKey_EarlyClaimKeepsOnlyItself(t *testing.T) {
	topic, s := newTestTopic()
	m := topic.Join("g", quiet)
	feed(t, topic, s, 1, 2)
	first := takeToClaim(t, m, 1)
	claim(t, m, takeToClaim(t, m, 2), "k", false)
	m.Settle(claim(t, m, first, "other", true))
	require.Nil(t, first.run.buf)
	m.Settle(takeToClaim(t, m, 2))
}

// What waits for its key is nothing that a handler of a dropped group keeps.
func TestKey_DropLeavesNothingWithTheHolder(t *testing.T) {
	topic, s := newTestTopic()
	m := topic.Join("g", quiet)
	feed(t, topic, s, 1, 2)
	holder := claim(t, m, takeToClaim(t, m, 1), "k", true)
	claim(t, m, takeToClaim(t, m, 2), "k", false)
	topic.Drop("g")
	require.Empty(t, holder.key.waiting)
}
