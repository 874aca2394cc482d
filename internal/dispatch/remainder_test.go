package dispatch

import (
	"maps"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/flow"
)

// takeAll takes and settles all that there is, and returns the sequences.
func takeAll(t testing.TB, m *Member) []uint64 {
	t.Helper()
	seqs := []uint64{}
	for {
		d, _, ok := m.Take()
		if !ok {
			return seqs
		}
		seqs = append(seqs, seqOf(d))
		m.Settle(d)
	}
}

// settle takes messages and settles those in the list, leaves, and so gives back the others.
func settleAndLeave(t testing.TB, m *Member, last uint64, settled ...uint64) {
	t.Helper()
	var held []Delivery
	for seq := uint64(1); seq <= last; seq++ {
		held = append(held, take(t, m, seq))
	}
	for _, seq := range settled {
		m.Settle(held[seq-1])
		held[seq-1].run = nil
	}
	for _, d := range held {
		if d.run != nil {
			m.Return(d)
		}
	}
	m.Leave()
}

// Two subscriptions without a group end one after the other, and come back: each gets what either had not settled.
func TestRemainder_IsGivenToAllThatComeBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		topic, s := newTestTopic()
		a, b := topic.Join("", quiet), topic.Join("", quiet)
		feed(t, topic, s, 1, 8)
		settleAndLeave(t, a, 4, 1, 3) // has not settled 2, 4 to 8
		require.Empty(t, s.reported())
		settleAndLeave(t, b, 6, 1, 2, 4, 5) // has not settled 3, 6 to 8
		require.Equal(t, []uint64{1, 2, 4, 5}, s.reported())
		feed(t, topic, s, 9, 9) // for the first to come
		time.Sleep(time.Hour)   // whenever that is
		feed(t, topic, s, 10, 10)

		first := topic.Join("", quiet)
		feed(t, topic, s, 11, 11)
		require.Equal(t, seqRange(2, 11), takeAll(t, first))
		require.ElementsMatch(t, seqRange(1, 11), s.reported())

		time.Sleep(remainderFor - time.Second)
		second := topic.Join("", quiet)
		feed(t, topic, s, 12, 12)
		d := take(t, second, 2)
		require.True(t, d.Redelivered)
		copy(d.Message(), "x") // a handler may write to it
		second.Return(d)
		require.Equal(t, append(seqRange(2, 10), 12), takeAll(t, second))
		third := topic.Join("", quiet)
		third.Settle(take(t, third, 2))
		require.Len(t, s.reported(), 11, "each message is reported once, and 12 waits for two")

		time.Sleep(time.Second)
		require.Empty(t, takeAll(t, topic.Join("", quiet)), "its time is over")
		synctest.Wait()
		require.Nil(t, topic.union.deliveries)
	})
}

// What a subscription leaves beside another is kept for the end of that one, and not for whom comes meanwhile.
func TestRemainder_BesideAnother(t *testing.T) {
	for name, c := range map[string]struct {
		after time.Duration
		want  []uint64
	}{
		"it ends soon": {remainderFor - 1, []uint64{2}},
		"it ends late": {remainderFor, []uint64{}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				topic, s := newTestTopic()
				a, b := topic.Join("", quiet), topic.Join("", quiet)
				feed(t, topic, s, 1, 2)
				settleAndLeave(t, a, 1, 1)
				require.Empty(t, takeAll(t, topic.Join("", quiet)))
				takeAll(t, b)
				require.Equal(t, seqRange(1, 2), s.reported())
				for len(topic.groups) > 1 {
					topic.groups[1].members[0].Leave()
				}
				time.Sleep(c.after)
				b.Leave()
				require.Equal(t, c.want, takeAll(t, topic.Join("", quiet)))
			})
		})
	}
}

// What one left does not stay longer because another left something later.
func TestRemainder_EachMessageHasItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		topic, s := newTestTopic()
		early, late, stays := topic.Join("", quiet), topic.Join("", quiet), topic.Join("", quiet)
		feed(t, topic, s, 1, 2)
		settleAndLeave(t, early, 2, 2)
		time.Sleep(remainderFor * 2 / 3)
		settleAndLeave(t, late, 2, 1)
		takeAll(t, stays)
		time.Sleep(remainderFor * 2 / 3)
		stays.Leave()
		require.Equal(t, []uint64{2}, takeAll(t, topic.Join("", quiet)))
		topic.Close()
	})
}

// A named group is not held up by subscriptions without a group that ended, before it came or after.
func TestRemainder_HoldsUpNoNamedGroup(t *testing.T) {
	topic, s := newTestTopic()
	topic.Join("", quiet).Leave()
	feed(t, topic, s, 1, 2)
	m := topic.Join("g", quiet) // the first to come
	require.Equal(t, seqRange(1, 2), takeAll(t, m))
	require.Equal(t, seqRange(1, 2), s.reported())
	look := topic.Join("", quiet)
	feed(t, topic, s, 3, 3)
	look.Settle(take(t, look, 1)) // what came before it is given again, as a subscription without a group had left it
	look.Leave()
	require.Equal(t, seqRange(3, 3), takeAll(t, m))
	feed(t, topic, s, 4, 4)
	require.Equal(t, seqRange(4, 4), takeAll(t, m))
	require.Equal(t, seqRange(1, 4), s.reported())
	requireFull(t, topic)
}

// One that comes and goes before it has settled anything gets the same again, and not more and more of it.
func TestRemainder_HoldsAtMostAWindow(t *testing.T) {
	window := flow.NewWindow(flow.Amount{Messages: 10, Bytes: 100 * each}, flow.NewBudget(10*windowRoom.Bytes))
	topic, s := NewTopic("topic", window, sized), newSource()
	next := uint64(1)
	for range 5 {
		stuck, prompt := topic.Join("", quiet), topic.Join("", quiet)
		feed(t, topic, s, next, next+5)
		next += 6
		takeAll(t, prompt)
		stuck.Leave()
		prompt.Leave()
	}
	m := topic.Join("", quiet)
	require.Equal(t, seqRange(next-10, next-1), takeAll(t, m))
	require.Len(t, topic.union.deliveries, 10)
	requireFull(t, topic)
	topic.Close()
	require.Nil(t, topic.union.timer)
}

// A topic is not forgotten while it keeps something, and it says when it can be.
func TestRemainder_ExpiryMayLeaveATopicUnused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		topic, s := newTestTopic()
		unused := make(chan struct{}, 1)
		topic.OnUnused(func() { unused <- struct{}{} })
		m := topic.Join("", quiet)
		feed(t, topic, s, 1, 1)
		m.Leave()
		m = topic.Join("", quiet)
		require.Equal(t, seqRange(1, 1), takeAll(t, m))
		m.Leave()
		require.False(t, topic.Retire())
		require.Empty(t, unused)
		<-unused
		require.True(t, topic.Retire())
	})
}

// What waits for its key when the last subscription ends is given to the next one once, not also as a copy.
func TestRemainder_WhatWaitsForItsKeyIsGivenOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		topic, s := newTestTopic()
		a := topic.Join("", quiet)
		feed(t, topic, s, 1, 3)
		a.Leave()
		b := topic.Join("", quiet) // what a left is kept as copies, too
		held := claim(t, b, takeToClaim(t, b, 1), "k", true)
		claim(t, b, takeToClaim(t, b, 2), "k", false)
		b.Return(held)
		b.Leave()
		c := topic.Join("", quiet)
		for seq := uint64(1); seq <= 3; seq++ {
			d := takeToClaim(t, c, seq)
			if d.HasKey() || c.Claim(&d, "k") {
				c.Settle(d)
			}
		}
		takeNone(t, c)
		require.Equal(t, seqRange(1, 3), s.reported())
		topic.Close()
	})
}

// What is given out once more may come before what holds its key in the group that goes on: the order of the key is that of the
// log.
func TestRemainder_KeepsTheOrderOfAKey(t *testing.T) {
	topic, s := newTestTopic()
	slow, fast := topic.Join("", quiet), topic.Join("", quiet)
	feed(t, topic, s, 1, 3)
	takeKeyed := func(m *Member, seq uint64) Delivery {
		d, _, ok := takeAnyToClaim(m)
		require.True(t, ok)
		require.Equal(t, seq, seqOf(d))
		require.True(t, d.HasKey() || m.Claim(&d, "k"))
		return d
	}
	slow.Return(takeKeyed(slow, 1))
	fast.Settle(takeKeyed(fast, 1))
	fast.Return(takeKeyed(fast, 2)) // it holds the key
	slow.Leave()
	fast.Leave()
	next := topic.Join("g", quiet)
	for seq := uint64(1); seq <= 3; seq++ {
		next.Settle(takeKeyed(next, seq))
	}
	require.Equal(t, []uint64{1, 2, 3}, slices.Sorted(maps.Keys(s.settled)))
}

// Two subscriptions without a group that are ended at once: neither stays, so that nothing of either counts as settled
// before the other's handlers have answered for it.
func TestRemainder_OfSubscriptionsThatEndTogetherIsNotSettled(t *testing.T) {
	topic, s := newTestTopic()
	a, b := topic.Join("", quiet), topic.Join("", quiet)
	feed(t, topic, s, 1, 6)
	a.BeginDrain()
	heldByB := []Delivery{take(t, b, 1), take(t, b, 2), take(t, b, 3)}
	b.BeginDrain()
	a.Leave() // has settled nothing
	require.Empty(t, s.reported())
	b.Settle(heldByB[0])
	b.Settle(heldByB[2])
	b.Return(heldByB[1])
	require.Empty(t, s.reported(), "a had not settled them")
	b.Leave()
	require.Empty(t, s.reported(), "nor has any that came since")

	require.Equal(t, seqRange(1, 6), takeAll(t, topic.Join("", quiet)))
	require.Equal(t, seqRange(1, 6), s.reported())
}

// What a had settled and b had not is b's, what b had settled is a's, and what both had not is there once.
func TestRemainder_OfSubscriptionsThatEndTogetherIsTheirUnion(t *testing.T) {
	topic, s := newTestTopic()
	a, b := topic.Join("", quiet), topic.Join("", quiet)
	feed(t, topic, s, 1, 6)
	heldByA := []Delivery{take(t, a, 1), take(t, a, 2), take(t, a, 3), take(t, a, 4)}
	heldByB := []Delivery{take(t, b, 1), take(t, b, 2)}
	for _, m := range []*Member{a, b} {
		m.BeginDrain()
	}
	a.Settle(heldByA[0])
	a.Settle(heldByA[2])
	a.Return(heldByA[1], heldByA[3])
	a.Leave() // has 2, 4, 5, 6
	b.Settle(heldByB[1])
	b.Return(heldByB[0])
	b.Leave() // has 1, 3, 4, 5, 6
	require.Empty(t, s.reported())

	c := topic.Join("", quiet)
	require.Equal(t, seqRange(1, 6), takeAll(t, c))
	require.Equal(t, seqRange(1, 6), s.reported())
	for _, n := range []int64{c.group.unsettled.Load(), int64(len(c.group.returned))} {
		require.Zero(t, n)
	}
}

// One that was asked to end, and has not noticed yet, does not stay either.
func TestRemainder_OfOneThatEndsBesideOneThatWasAskedToIsNotSettled(t *testing.T) {
	topic, s := newTestTopic()
	a, b := topic.Join("", quiet), topic.Join("", quiet)
	feed(t, topic, s, 1, 2)
	asked := false
	b.WhenEnding(func() bool { return asked })
	asked = true
	a.Leave()
	b.Settle(take(t, b, 1))
	b.Leave()
	require.Empty(t, s.reported())
	require.Equal(t, seqRange(1, 2), takeAll(t, topic.Join("", quiet)))
}

// A subscription that comes while another of its kind ends has what one before left, which counts as settled by none.
func TestRemainder_GoesToTheFirstThatComesBesideOneThatEnds(t *testing.T) {
	topic, s := newTestTopic()
	a, b := topic.Join("", quiet), topic.Join("", quiet)
	feed(t, topic, s, 1, 2)
	a.BeginDrain()
	b.BeginDrain()
	a.Leave()
	c := topic.Join("", quiet)
	require.Equal(t, seqRange(1, 2), takeAll(t, c))
	require.Empty(t, s.reported(), "b may handle them yet")
	b.Leave() // beside c
	require.Equal(t, seqRange(1, 2), s.reported())
}

// One of the two has copies only, of what waited before it came: they do not stand for the messages themselves.
func TestRemainder_CopiesSettleNothingWhereSubscriptionsEndTogether(t *testing.T) {
	for _, copyFirst := range []bool{true, false} {
		topic, s := newTestTopic()
		topic.Initialize("")
		feed(t, topic, s, 1, 3)
		a := topic.Join("", quiet) // has them
		b := topic.Join("", quiet) // has copies
		ends := []*Member{a, b}
		if copyFirst {
			ends = []*Member{b, a}
		}
		a.BeginDrain()
		b.BeginDrain()
		ends[0].Leave()
		ends[1].Leave()
		require.Empty(t, s.reported())
		require.Equal(t, seqRange(1, 3), takeAll(t, topic.Join("", quiet)))
		require.Equal(t, seqRange(1, 3), s.reported())
	}
}
