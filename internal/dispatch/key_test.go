package dispatch

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

// claim claims the key and checks the answer. It returns the delivery with its key.
func claim(t *testing.T, m *Member, d Delivery, key string, want bool) Delivery {
	t.Helper()
	require.Equal(t, want, m.Claim(&d, key), "%d claims %q", seqOf(d), key)
	return d
}

func TestKey_MessagesComeOneAtATimeInOrder(t *testing.T) {
	topic, s := newTestTopic()
	var s1, s2 signal
	m1, m2 := topic.Join("g", s1.notify), topic.Join("g", s2.notify)
	feed(t, topic, s, 1, 6)
	d1 := claim(t, m1, take(t, m1, 1), "k", true)
	claim(t, m2, take(t, m2, 2), "k", false)
	claim(t, m2, take(t, m2, 3), "k", false)
	d4 := claim(t, m2, take(t, m2, 4), "other", true)
	claim(t, m2, take(t, m2, 5), "k", false)
	require.Equal(t, 4, topic.Backlog("g"))
	m2.Settle(take(t, m2, 6))
	takeNone(t, m2)
	m2.Settle(d4)
	require.Zero(t, s2.n, "another key is no reason to look")
	s2 = signal{}
	m1.Return(d1)
	require.Equal(t, 1, s2.n)
	d1 = claim(t, m2, take(t, m2, 1), "k", true)
	takeNone(t, m1)
	s1 = signal{}
	m2.Settle(d1)
	require.Equal(t, 1, s1.n)
	d2 := claim(t, m1, take(t, m1, 2), "k", true)
	m1.Refuse(d2, Refusal{})
	d3 := claim(t, m1, take(t, m1, 3), "k", true)
	m1.Settle(d3)
	d5 := claim(t, m1, take(t, m1, 5), "k", true)
	m1.Settle(d5)
	require.Equal(t, []uint64{6, 4, 1, 2, 3, 5}, s.reported())
	require.Empty(t, m1.group.keys, "a key without messages is forgotten")
	requireFull(t, topic)
}

// The key goes on even if its next holder is ended without a Claim.
func TestKey_GoesOnWhenItsHolderIsRefusedUnclaimed(t *testing.T) {
	topic, s := newTestTopic()
	m := topic.Join("g", quiet)
	feed(t, topic, s, 1, 3)
	d1 := claim(t, m, take(t, m, 1), "k", true)
	claim(t, m, take(t, m, 2), "k", false)
	claim(t, m, take(t, m, 3), "k", false)
	m.Settle(d1)
	m.Refuse(take(t, m, 2), Refusal{Reason: "too old"})
	m.Settle(claim(t, m, take(t, m, 3), "k", true))
	requireFull(t, topic)
}

// A key function may say something else of a message that comes again. The message keeps its first key, and passes that on.
func TestKey_StaysTheFirstOne(t *testing.T) {
	topic, s := newTestTopic()
	m := topic.Join("g", quiet)
	feed(t, topic, s, 1, 3)
	d1 := claim(t, m, take(t, m, 1), "k", true)
	claim(t, m, take(t, m, 2), "k", false)
	claim(t, m, take(t, m, 3), "k", false)
	m.Return(d1)
	m.Settle(claim(t, m, take(t, m, 1), "other", true))
	m.Settle(claim(t, m, take(t, m, 2), "another", true))
	m.Settle(claim(t, m, take(t, m, 3), "k", true))
	require.Empty(t, m.group.keys)
	requireFull(t, topic)
}

func TestKey_DropSettlesWhatWaits(t *testing.T) {
	topic, s := newTestTopic()
	m := topic.Join("g", quiet)
	feed(t, topic, s, 1, 4)
	d1 := claim(t, m, take(t, m, 1), "k", true)
	claim(t, m, take(t, m, 2), "k", false)
	d3 := take(t, m, 3)
	topic.Drop("g")
	require.Equal(t, []uint64{2, 4}, s.reported())
	m.Settle(claim(t, m, d3, "k", true)) // the group would not give it out again
	m.Settle(d1)
	require.Equal(t, []uint64{2, 4, 3, 1}, s.reported())
	requireFull(t, topic)
}

// Drop reports messages in the order of the log, whichever keys they wait for, and so in few ranges.
func TestKey_DropReportsInOrderOfTheLog(t *testing.T) {
	const keys = 16 // a map of so many does not come in order by chance
	topic, s := newTestTopic()
	m := topic.Join("g", quiet)
	feed(t, topic, s, 1, 4*keys)
	for seq := uint64(1); seq <= 3*keys; seq++ {
		claim(t, m, take(t, m, seq), fmt.Sprint(seq%keys), seq <= keys)
	}
	topic.Drop("g")
	require.Equal(t, seqRange(keys+1, 4*keys), s.reported())
}

// takeToClaim takes the next message and checks that it is seq.
func takeToClaim(t *testing.T, m *Member, seq uint64) Delivery {
	t.Helper()
	d, _, ok := takeAnyToClaim(m)
	require.True(t, ok)
	require.Equal(t, seq, seqOf(d))
	return d
}

// Members that are slow to find keys hold no lock, and the order is kept: a claim that comes early waits.
func TestKey_EarlyClaimsWait(t *testing.T) {
	topic, s := newTestTopic()
	var s1, s2 signal
	m1, m2 := topic.Join("g", s1.notify), topic.Join("g", s2.notify)
	feed(t, topic, s, 1, 4)
	d1 := takeToClaim(t, m1, 1)
	d2, d3, d4 := takeToClaim(t, m2, 2), takeToClaim(t, m2, 3), takeToClaim(t, m2, 4)
	claim(t, m2, d3, "other", false)
	claim(t, m2, d2, "k", false)
	m2.Forgo(&d4)
	require.Equal(t, 2, topic.Backlog("g"))
	_, _, ok := takeAnyToClaim(m2)
	require.False(t, ok)
	s2 = signal{}
	d1 = claim(t, m1, d1, "k", true)
	require.NotZero(t, s2.n, "there is a message for another key now")
	d3 = takeToClaim(t, m2, 3)
	require.True(t, d3.HasKey())
	takeNone(t, m2)
	m1.Settle(d1)
	d2 = takeToClaim(t, m2, 2)
	require.True(t, d2.HasKey())
	m2.SettleAll([]Delivery{d2, d3, d4})
	require.Empty(t, m1.group.keys)
	require.Empty(t, m1.group.unclaimed)
	requireFull(t, topic)
}

// A member that never finds a key gives the message back: the claims behind it go on waiting, for the member that takes it.
func TestKey_EarlyClaimsWaitForWhatWasReturned(t *testing.T) {
	topic, s := newTestTopic()
	m1, m2 := topic.Join("g", quiet), topic.Join("g", quiet)
	feed(t, topic, s, 1, 3)
	d1, d2, d3 := takeToClaim(t, m1, 1), takeToClaim(t, m2, 2), takeToClaim(t, m2, 3)
	claim(t, m2, d2, "k", false)
	m1.Return(d1)
	m1.Leave()
	claim(t, m2, d3, "k", false)
	d1 = claim(t, m2, takeToClaim(t, m2, 1), "k", true)
	takeNone(t, m2)
	for seq := uint64(2); seq <= 3; seq++ {
		m2.Settle(d1)
		d1 = takeToClaim(t, m2, seq)
	}
	m2.Settle(d1)
	require.Equal(t, []uint64{1, 2, 3}, s.reported())
	requireFull(t, topic)
}

func TestKey_DropSettlesEarlyClaims(t *testing.T) {
	topic, s := newTestTopic()
	m := topic.Join("g", quiet)
	feed(t, topic, s, 1, 3)
	d1, d2 := takeToClaim(t, m, 1), takeToClaim(t, m, 2)
	claim(t, m, d2, "k", false)
	topic.Drop("g")
	require.Equal(t, []uint64{2, 3}, s.reported())
	m.Settle(claim(t, m, d1, "k", true))
	requireFull(t, topic)
}

// A message that gets no key, as it cannot be decoded, holds up no claim behind it any more.
func TestKey_EarlyClaimsWaitNoMoreForWhatHasNoKey(t *testing.T) {
	topic, s := newTestTopic()
	var s2 signal
	m1, m2 := topic.Join("g", quiet), topic.Join("g", s2.notify)
	feed(t, topic, s, 1, 2)
	d1, d2 := takeToClaim(t, m1, 1), takeToClaim(t, m2, 2)
	claim(t, m2, d2, "k", false)
	_, _, ok := takeAnyToClaim(m2)
	require.False(t, ok)
	s2 = signal{}
	m1.Forgo(&d1)
	require.NotZero(t, s2.n)
	d2 = takeToClaim(t, m2, 2)
	require.True(t, d2.HasKey())
	m1.Settle(d1)
	m2.Settle(d2)
	requireFull(t, topic)
}
