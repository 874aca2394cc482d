package dispatch

import (
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestATakenMessageKeepsOnlyItself: the memory in which a run arrived is free when every group has taken all of it, whatever
// happens to its messages then.
func TestATakenMessageKeepsOnlyItself(t *testing.T) {
	topic, s := newTestTopic()
	a, b := topic.Join("a", quiet), topic.Join("b", quiet)
	feed(t, topic, s, 1, 3)
	var held []Delivery
	for seq := uint64(1); seq <= 3; seq++ {
		held = append(held, take(t, a, seq), take(t, b, seq))
		require.Equal(t, seq == 3, held[0].node.buf == nil, "seq %d", seq)
	}
	a.Return(held[0])
	require.True(t, b.Claim(&held[1], "key"))
	require.False(t, b.Claim(&held[3], "key"))
	require.Equal(t, "1", string(take(t, a, 1).Message()))
	require.Equal(t, "2", string(held[3].Message()))
}

// TestADroppedGroupLetsGoOfTheMemory: what it had not taken, nobody will take for it.
func TestADroppedGroupLetsGoOfTheMemory(t *testing.T) {
	topic, s := newTestTopic()
	a := topic.Join("a", quiet)
	topic.Initialize("b")
	feed(t, topic, s, 1, 2)
	take(t, a, 1)
	d := take(t, a, 2)
	require.NotNil(t, d.node.buf)
	topic.Drop("b")
	require.Nil(t, d.node.buf)
}

// TestASingleMessageIsNotCopied: what the caller has no use for any more is kept as it is.
func TestASingleMessageIsNotCopied(t *testing.T) {
	topic, s := newTestTopic()
	m := topic.Join("a", quiet)
	msg := []byte("1")
	topic.Append(s, 1, [][]byte{msg}, topicTime, true)
	d := take(t, m, 1)
	require.Same(t, &msg[0], &d.Message()[0])
	topic.Append(s, 2, [][]byte{[]byte("2")}, topicTime, false)
	d = take(t, m, 2)
	require.Equal(t, "2", string(d.Message()))
}

// TestMessagesOfSeveralRunsAreTakenTogether: each gets its own bytes, whether or not it was given back before.
func TestMessagesOfSeveralRunsAreTakenTogether(t *testing.T) {
	topic, s := newTestTopic()
	m := topic.Join("a", quiet)
	feed(t, topic, s, 1, 4)
	ds, _ := m.TakeUpTo(nil, 3, true)
	require.Len(t, ds, 3)
	m.Return(ds[1])
	m.Return(ds[2])
	feed(t, topic, s, 5, 6)
	feed(t, topic, s, 7, 7)
	feed(t, topic, s, 8, 9)
	ds, _ = m.TakeUpTo(ds[:1], 8, true)
	require.Len(t, ds, 9)
	for i, d := range ds {
		_, seq := d.Origin()
		require.Equal(t, uint64(i+1), seq)
		require.Equal(t, strconv.Itoa(i+1), string(d.Message()))
		require.True(t, d.node.buf == nil || d.node.single())
	}
}
