package dispatch

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// takeUnkept takes the next unkept message and checks that it is seq.
func takeUnkept(t *testing.T, m *Member, seq uint64) Delivery {
	t.Helper()
	d, ok := m.TakeUnkept(false)
	require.True(t, ok, "there is a message")
	require.Equal(t, seq, seqOf(d))
	return d
}

func takeNoneUnkept(t *testing.T, m *Member) {
	t.Helper()
	d, ok := m.TakeUnkept(false)
	require.False(t, ok, "%v", d)
}

func TestDrain_TakesOnlyWhatNoSenderKeeps(t *testing.T) {
	topic, kept := newTestTopic()
	gone := alone()
	m := topic.Join("g", quiet)
	feed(t, topic, kept, 1, 2)
	feed(t, topic, gone, 3, 4)
	feed(t, topic, kept, 5, 5)
	feed(t, topic, gone, 6, 6)
	first := take(t, m, 1)
	require.False(t, m.HasSuccessor())
	m.BeginDrain()
	takeNone(t, m)
	m.Settle(takeUnkept(t, m, 3))
	d := takeUnkept(t, m, 4)
	m.Return(d, first)
	d = takeUnkept(t, m, 4)
	require.True(t, d.Redelivered)
	m.Settle(d)
	m.Settle(takeUnkept(t, m, 6))
	takeNoneUnkept(t, m)
	feed(t, topic, gone, 7, 7)
	kept.alone = true // its connection ends
	m.Settle(takeUnkept(t, m, 1))
	m.Settle(takeUnkept(t, m, 2))
	m.StopTaking()
	takeNoneUnkept(t, m)
	next := topic.Join("g", quiet)
	m.Leave()
	require.Equal(t, []uint64{5, 7}, takeAll(t, next), "what it left is there, in order")
	requireFull(t, topic)
}

// A member that lives on is the one to handle what is left, and gets it at once; others that drain share it.
func TestDrain_LeavesEverythingToASuccessor(t *testing.T) {
	topic, _ := newTestTopic()
	gone := alone()
	var woken signal
	a, b := topic.Join("g", quiet), topic.Join("g", woken.notify)
	takeNone(t, a)
	takeNone(t, b)
	woken = signal{}
	feed(t, topic, gone, 1, 1) // a is notified
	a.BeginDrain()
	require.Equal(t, 1, woken.n, "it is b's message now")
	takeNoneUnkept(t, a)
	require.True(t, a.HasSuccessor())
	b.Settle(take(t, b, 1))
	b.BeginDrain()
	require.False(t, a.HasSuccessor())
	feed(t, topic, gone, 2, 4)
	a.Settle(takeUnkept(t, a, 2))
	b.Settle(takeUnkept(t, b, 3))
	c := topic.Join("g", quiet)
	takeNoneUnkept(t, a)
	c.Settle(take(t, c, 4))
}

// A member that drains waits for nothing: it would be notified of what another is to take.
func TestDrain_IsNotNotified(t *testing.T) {
	topic, s := newTestTopic()
	var drains, lives signal
	a := topic.Join("g", drains.notify)
	feed(t, topic, s, 1, 1)
	d := take(t, a, 1)
	takeNone(t, a)
	a.BeginDrain()
	b := topic.Join("g", lives.notify)
	takeNone(t, b)
	drains, lives = signal{}, signal{}
	a.Yield(d)
	require.Equal(t, 1, lives.n)
	b.Settle(take(t, b, 1))
	takeNone(t, b)
	feed(t, topic, s, 2, 2)
	require.Zero(t, drains.n)
	require.Equal(t, 2, lives.n)
}

// What was handed to a member that drains goes back.
func TestDrain_PassesOnWhatWasHandedToIt(t *testing.T) {
	topic, s := newTestTopic()
	a, b := topic.Join("g", quiet), topic.Join("g", quiet)
	feed(t, topic, s, 1, 1)
	d := take(t, a, 1)
	takeNone(t, b)
	require.True(t, a.HandOver(d))
	b.BeginDrain()
	a.Settle(take(t, a, 1))
	requireFull(t, topic)
}

// Messages of one key stay in order, whichever sender keeps them: one that is kept and whose key is not known is taken for that.
func TestDrain_KeepsTheOrderOfKeys(t *testing.T) {
	topic, kept := newTestTopic()
	gone := alone()
	m := topic.Join("g", quiet)
	feed(t, topic, kept, 1, 1)
	feed(t, topic, gone, 2, 3)
	m.BeginDrain()
	toClaim := func(seq uint64) Delivery {
		d, ok := m.TakeUnkept(true)
		require.True(t, ok)
		require.Equal(t, seq, seqOf(d))
		return d
	}
	m.Return(claim(t, m, toClaim(1), "k", true)) // its sender keeps it, and it keeps its key
	claim(t, m, toClaim(2), "k", false)
	m.Settle(claim(t, m, toClaim(3), "other", true))
	d, ok := m.TakeUnkept(true)
	require.False(t, ok, "%v", d)
	kept.alone = true
	for seq := uint64(1); seq <= 2; seq++ {
		d := toClaim(seq)
		require.True(t, d.HasKey())
		m.Settle(d)
	}
	requireFull(t, topic)
}

// One that is kept and has no key, as it cannot be decoded, is taken for its key once, and not again and again.
func TestDrain_LooksOnceForAKey(t *testing.T) {
	topic, kept := newTestTopic()
	m := topic.Join("g", quiet)
	feed(t, topic, kept, 1, 1)
	m.BeginDrain()
	d, ok := m.TakeUnkept(true)
	require.True(t, ok)
	m.Forgo(&d)
	m.Return(d)
	_, ok = m.TakeUnkept(true)
	require.False(t, ok)
	kept.alone = true
	d, ok = m.TakeUnkept(true)
	require.True(t, ok, "nothing else keeps it now")
	m.Settle(d)
	requireFull(t, topic)
}

// One that takes nothing more, and has not left, is no successor.
func TestDrain_AMemberThatTakesNothingIsNoSuccessor(t *testing.T) {
	topic, _ := newTestTopic()
	m, other := topic.Join("g", quiet), topic.Join("g", quiet)
	feed(t, topic, alone(), 1, 1)
	m.BeginDrain()
	require.True(t, m.HasSuccessor())
	takeNoneUnkept(t, m)
	other.StopTaking()
	require.False(t, m.HasSuccessor())
	m.Settle(takeUnkept(t, m, 1))
	requireFull(t, topic)
}
