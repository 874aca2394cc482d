package dispatch

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/flow"
)

// The oldest message that a group has not settled is found wherever it is.
func TestStats_FindTheOldestWhereverItIs(t *testing.T) {
	for name, hold := range map[string]func(t *testing.T, m, idle *Member){
		"in the log": func(*testing.T, *Member, *Member) {},
		"returned":   func(t *testing.T, m, _ *Member) { m.Return(take(t, m, 1)) },
		"at hand": func(t *testing.T, m, _ *Member) {
			d := take(t, m, 1)
			m.NoteFirst(&d)
		},
		"kept": func(t *testing.T, m, _ *Member) {
			d := take(t, m, 1)
			later := take(t, m, 2)
			m.Keep(&d)
			m.Keep(&later)
			m.Dismiss(&later)
		},
		"kept, after one at hand": func(t *testing.T, m, _ *Member) {
			d := take(t, m, 1)
			m.Keep(&d)
			later := take(t, m, 2)
			m.NoteFirst(&later)
		},
		"handed over": func(t *testing.T, m, idle *Member) {
			d := take(t, m, 1)
			m.group.addWaiter(idle)
			require.True(t, m.HandOver(d))
		},
	} {
		t.Run(name, func(t *testing.T) {
			topic, s := newTestTopic()
			m, idle := topic.Join("g", quiet), topic.Join("g", quiet)
			feed(t, topic, s, 1, 1)
			require.NotZero(t, topic.window.Take(flow.Amount{Messages: 1, Bytes: each}))
			topic.Append(s, 2, [][]byte{[]byte("2")}, topicTime.Add(time.Minute), nil)
			hold(t, m, idle)
			require.Equal(t, topicTime, topic.Stats().Groups[0].Oldest)
		})
	}
}

// What waits for its key, or for that of an earlier message, is there besides what members have.
func TestStats_FindTheOldestThatWaitsForAKey(t *testing.T) {
	for name, claims := range map[string]func(t *testing.T, m *Member, first, second Delivery){
		"its own": func(t *testing.T, m *Member, first, second Delivery) {
			claim(t, m, first, "k", true)
			claim(t, m, second, "k", false)
		},
		"an earlier one's": func(t *testing.T, m *Member, _, second Delivery) { claim(t, m, second, "k", false) },
	} {
		t.Run(name, func(t *testing.T) {
			topic, s := newTestTopic()
			m := topic.Join("g", quiet)
			feed(t, topic, s, 1, 2)
			claims(t, m, takeToClaim(t, m, 1), takeToClaim(t, m, 2))
			require.Equal(t, topicTime, topic.Stats().Groups[0].Oldest)
		})
	}
}

// What a member has dismissed, or has at hand no more, is not old, and nothing is when all is settled.
func TestStats_OldestIsForgotten(t *testing.T) {
	topic, s := newTestTopic()
	m := topic.Join("g", quiet)
	feed(t, topic, s, 1, 1)
	d := take(t, m, 1)
	m.NoteFirst(&d)
	m.Keep(&d)
	m.Keep(&d)
	m.NoteFirst(nil)
	m.Dismiss(&d)
	require.Equal(t, topicTime, m.Oldest(), "it keeps another of that time")
	m.Dismiss(&d)
	require.Zero(t, m.Oldest())
	require.Empty(t, m.kept)
	m.Settle(d)
	require.Zero(t, topic.Stats().Groups[0].Oldest)
}

// Stats names the keys for which most messages wait, and says what the window holds.
func TestStats_NameTheKeysThatMostWaitFor(t *testing.T) {
	topic, s := newTestTopic("missing")
	topic.Drop("missing")
	m := topic.Join("g", quiet)
	next := uint64(1)
	add := func(key string, claimed bool) {
		feed(t, topic, s, next, next)
		claim(t, m, takeToClaim(t, m, next), key, claimed)
		next++
	}
	for i := range maxStuckKeys + 2 {
		key := fmt.Sprintf("k%02d", i)
		add(key, true)
		add(key, false)
	}
	add("k05", false)
	st := topic.Stats()
	require.Equal(t, flow.Amount{Messages: int(next - 1), Bytes: int(next-1) * each}, st.Held)
	require.Equal(t, windowRoom, st.Window)
	g := st.Groups[0]
	require.Equal(t, maxStuckKeys+3, g.Waiting)
	require.Len(t, g.Keys, maxStuckKeys)
	require.Equal(t, KeyStats{Key: "k05", Waiting: 2, Oldest: topicTime}, g.Keys[0])
	require.Equal(t, "k00", g.Keys[1].Key)
	require.Equal(t, "k09", g.Keys[9].Key)
}

// Shortage names some of the groups that are missing or behind, and how many more there are.
func TestShortage_NamesGroups(t *testing.T) {
	var names []string
	for i := range maxNamed + 2 {
		names = append(names, fmt.Sprint("g", i))
	}
	topic, s := newTestTopic(names...)
	require.Equal(t, `declared consumer groups have not subscribed yet: group "g0", group "g1", group "g2", group "g3", group "g4", 2 more`,
		topic.Shortage())
	for _, name := range names {
		topic.Initialize(name)
	}
	feed(t, topic, s, 1, 3)
	for _, name := range names[1:] {
		m := topic.Join(name, quiet)
		m.Settle(take(t, m, 1))
		m.Settle(take(t, m, 2))
		m.Leave()
	}
	topic.window.Wait(&flow.Claim{Want: windowRoom, Enough: windowRoom, Least: windowRoom, Grant: func(flow.Amount) {}})
	require.Equal(t, `its window holds 3 messages, 30 bytes, that are not handled or on their way: group "g0", which has no subscription now, has not handled 3`,
		topic.Stats().Shortage)
}

// That another receiver may have had a message is told with it, and with its copies.
func TestTopic_TellsWhatMayHaveBeenElsewhere(t *testing.T) {
	topic, s := newTestTopic()
	topic.Initialize("")
	require.NotZero(t, topic.window.Take(flow.Amount{Messages: 1, Bytes: each}))
	topic.AppendAgain(s, 1, [][]byte{[]byte("1")}, topicTime, nil)
	for range 2 {
		d := take(t, topic.Join("", quiet), 1)
		require.True(t, d.Elsewhere())
	}
	topic.Close()
}

// The oldest message is the oldest of all that a member has, wherever it is.
func TestStats_OldestIsTheOldestOfAll(t *testing.T) {
	topic, _ := newTestTopic()
	m := topic.Join("g", quiet)
	at := func(second int) *Delivery {
		return &Delivery{run: &run{at: topicTime.Add(time.Duration(second) * time.Second)}}
	}
	for second := range 9 {
		m.Keep(at(second + 2))
	}
	for range 20 { // a map gives them in any order
		require.Equal(t, at(2).Received(), m.Oldest())
	}
	m.NoteFirst(at(1))
	require.True(t, at(1).Received().Equal(m.Oldest()))
	m.NoteFirst(at(3))
	require.Equal(t, at(2).Received(), m.Oldest())
}
