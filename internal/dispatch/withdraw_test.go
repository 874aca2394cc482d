package dispatch

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// revocable is a source that can be revoked. It notes what comes back.
type revocable struct {
	*source
	gone              bool
	calls             int      // of Returned
	returned, handled []uint64 // handled: by some group
}

func (r *revocable) Revoked() bool { return r.gone }

func (r *revocable) Returned(first, last uint64, handled bool) {
	r.calls++
	for seq := first; seq <= last; seq++ {
		if handled {
			r.handled = append(r.handled, seq)
		} else {
			r.returned = append(r.returned, seq)
		}
	}
}

func (r *revocable) revoke(topic *Topic) {
	r.gone = true
	topic.Withdraw(r)
}

func TestWithdraw_WhatNoMemberHasComesBack(t *testing.T) {
	topic, plain := newTestTopic()
	r := &revocable{source: newSource()}
	m := topic.Join("g", quiet)
	feed(t, topic, r, 1, 3)
	feed(t, topic, plain, 1, 2)
	feed(t, topic, r, 4, 6)
	first, second := take(t, m, 1), take(t, m, 2)
	r.revoke(topic)
	require.Equal(t, seqRange(3, 6), r.returned)
	require.True(t, m.Recalled())
	require.False(t, m.Recalled())
	require.Equal(t, 2, topic.Backlog("g"))

	m.Return(second) // it is not offered once more
	require.Equal(t, []uint64{3, 4, 5, 6, 2}, r.returned)
	m.Settle(first)
	require.Equal(t, []uint64{1}, r.reported())
	m.Settle(take(t, m, 1))
	m.Settle(take(t, m, 2))
	takeNone(t, m)
	require.Equal(t, []uint64{1, 2}, plain.reported())
	requireFull(t, topic)
	feed(t, topic, plain, 3, 3)
	m.Settle(take(t, m, 3))
	requireFull(t, topic)
}

func TestWithdraw_WhatAnotherGroupHasHandledIsToldApart(t *testing.T) {
	topic, _ := newTestTopic()
	r := &revocable{source: newSource()}
	fast, slow := topic.Join("fast", quiet), topic.Join("slow", quiet)
	feed(t, topic, r, 1, 4)
	fast.Settle(take(t, fast, 1))
	fast.Settle(take(t, fast, 2))
	slow.Settle(take(t, slow, 1))
	late := take(t, fast, 3)
	r.revoke(topic)
	require.Equal(t, []uint64{1}, r.reported())
	require.Equal(t, []uint64{4}, r.returned)
	require.Equal(t, []uint64{2}, r.handled)
	fast.Settle(late)
	require.Equal(t, []uint64{2, 3}, r.handled)
	requireFull(t, topic)
}

func TestWithdraw_KeysGoOn(t *testing.T) {
	topic, plain := newTestTopic()
	r := &revocable{source: newSource()}
	m := topic.Join("g", quiet)
	feed(t, topic, r, 1, 2)
	feed(t, topic, plain, 1, 1)
	held, _, ok := takeAnyToClaim(m)
	require.True(t, ok)
	require.True(t, m.Claim(&held, "k"))
	for range 2 { // they wait for the key
		d, _, ok := takeAnyToClaim(m)
		require.True(t, ok)
		require.False(t, m.Claim(&d, "k"))
	}
	m.Return(held) // it keeps its key
	r.revoke(topic)
	require.Equal(t, seqRange(1, 2), r.returned)
	d, _, ok := takeAnyToClaim(m)
	require.True(t, ok)
	require.EqualValues(t, 1, seqOf(d))
	require.True(t, d.HasKey())
	m.Settle(d)
	require.Equal(t, []uint64{1}, plain.reported())
	requireFull(t, topic)
}

func TestGroupsDigest(t *testing.T) {
	empty, _ := newTestTopic()
	require.Zero(t, empty.GroupsDigest())
	empty.Join("", quiet)
	require.Zero(t, empty.GroupsDigest())
	one, _ := newTestTopic("a", "b")
	two, _ := newTestTopic("b")
	two.Join("a", quiet)
	require.NotZero(t, one.GroupsDigest())
	require.Equal(t, one.GroupsDigest(), two.GroupsDigest())
	two.Join("c", quiet)
	require.NotEqual(t, one.GroupsDigest(), two.GroupsDigest())
}

// Claims that came early wait for a message of a source that is withdrawn no more, whether it was given back before or after.
func TestWithdraw_EarlyClaimsGoOn(t *testing.T) {
	for _, before := range []bool{false, true} {
		topic, plain := newTestTopic()
		r := &revocable{source: newSource()}
		var s2 signal
		m1, m2 := topic.Join("g", quiet), topic.Join("g", s2.notify)
		feed(t, topic, r, 1, 1)
		feed(t, topic, plain, 2, 2)
		d1, d2 := takeToClaim(t, m1, 1), takeToClaim(t, m2, 2)
		claim(t, m2, d2, "k", false)
		if before {
			m1.Return(d1)
			r.revoke(topic)
		} else {
			_, _, ok := takeAnyToClaim(m2)
			require.False(t, ok)
			r.revoke(topic)
			s2 = signal{}
			m1.Return(d1)
			require.NotZero(t, s2.n)
		}
		d2 = takeToClaim(t, m2, 2)
		require.True(t, d2.HasKey(), "before: %v", before)
		m2.Settle(d2)
		requireFull(t, topic)
	}
}

// What a revoked source has taken back its sender keeps: it is not lost with the process. A member has to return what it
// has of that source, and of no other.
func TestWithdraw_LeavesTheRestAlone(t *testing.T) {
	topic, plain := newTestTopic()
	r := &revocable{source: alone()}
	m := topic.Join("g", quiet)
	feed(t, topic, r, 1, 3)
	feed(t, topic, plain, 1, 2)
	mine := take(t, m, 1)
	r.revoke(topic)
	plain.alone = true
	require.Equal(t, [][]byte{[]byte("1"), []byte("2")}, topic.Unkept())
	other := take(t, m, 1)
	require.Equal(t, []bool{true, false}, []bool{m.MustReturn(&mine), m.MustReturn(&other)})
	topic.Drop("g")
	require.True(t, m.MustReturn(&other), "the group was dropped")
	m.Return(mine, other)
	require.Equal(t, []uint64{2, 3}, r.returned)
	require.Equal(t, []uint64{1}, r.reported(), "the dropped group has settled what it had")
	requireFull(t, topic)
}
