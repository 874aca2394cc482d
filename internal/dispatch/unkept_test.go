package dispatch

import (
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
)

// requireUnkept wants the messages of these sequences, in this order.
func requireUnkept(t *testing.T, topic *Topic, seqs ...uint64) {
	t.Helper()
	var want []string
	for _, seq := range seqs {
		want = append(want, fmt.Sprint(seq))
	}
	var got []string
	for _, m := range topic.Unkept() {
		got = append(got, string(m))
	}
	require.Equal(t, want, got)
}

// alone returns a source whose sender is gone.
func alone() *source {
	s := newSource()
	s.alone = true
	return s
}

func TestUnkept_IsWhatNoSenderKeeps(t *testing.T) {
	topic, kept := newTestTopic()
	gone := alone()
	m := topic.Join("g", quiet)
	requireUnkept(t, topic)
	feed(t, topic, kept, 1, 2)
	feed(t, topic, gone, 3, 5)
	feed(t, topic, kept, 6, 6)
	feed(t, topic, gone, 7, 7)
	requireUnkept(t, topic, 3, 4, 5, 7)
	gone.alone = false // it is back
	requireUnkept(t, topic)
	gone.alone = true
	var held []Delivery
	for seq := range uint64(4) {
		held = append(held, take(t, m, seq+1))
	}
	requireUnkept(t, topic, 5, 7)
	m.Settle(held[2])
	m.Return(held[3], held[0]) // it did not get to them
	requireUnkept(t, topic, 4, 5, 7)
}

// A message that two groups have not settled is one message, and one that only one of them has not is unkept too.
func TestUnkept_HasEachMessageOnce(t *testing.T) {
	topic, _ := newTestTopic()
	gone := alone()
	a, b := topic.Join("a", quiet), topic.Join("b", quiet)
	feed(t, topic, gone, 1, 4)
	requireUnkept(t, topic, 1, 2, 3, 4)
	a.Settle(take(t, a, 1))
	b.Settle(take(t, b, 1))
	a.Settle(take(t, a, 2))
	for seq := uint64(2); seq <= 4; seq++ {
		b.Settle(take(t, b, seq))
	}
	requireUnkept(t, topic, 3, 4)
	take(t, a, 3)
	requireUnkept(t, topic, 4)
}

// What waits for its key, or for the keys of earlier messages, is not with a member.
func TestUnkept_HasWhatWaitsForAKey(t *testing.T) {
	topic, _ := newTestTopic()
	m := topic.Join("g", quiet)
	feed(t, topic, alone(), 1, 6)
	first := claim(t, m, takeToClaim(t, m, 1), "k", true)
	claim(t, m, takeToClaim(t, m, 2), "k", false)
	third := takeToClaim(t, m, 3)
	claim(t, m, takeToClaim(t, m, 4), "other", false) // it comes early
	requireUnkept(t, topic, 2, 4, 5, 6)
	m.Return(third, first)
	requireUnkept(t, topic, 1, 2, 3, 4, 5, 6)
}

// What is given out once more was settled, or is somebody's who will account for it.
func TestUnkept_HasNothingThatIsGivenAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		topic, _ := newTestTopic()
		a := topic.Join("", quiet)
		feed(t, topic, alone(), 1, 3)
		a.Leave()
		requireUnkept(t, topic, 1, 2, 3)
		b := topic.Join("", quiet)
		require.Equal(t, seqRange(1, 3), takeAll(t, b))
		c := topic.Join("", quiet)
		requireUnkept(t, topic)
		require.Equal(t, seqRange(1, 3), takeAll(t, c), "once more")
		topic.Close()
	})
}
