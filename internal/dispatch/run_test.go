package dispatch

import (
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/flow"
)

// The memory of a run is free when every group has taken all of its messages, whatever happens to them then.
func TestRun_TakenMessageKeepsOnlyItself(t *testing.T) {
	topic, s := newTestTopic()
	a, b := topic.Join("a", quiet), topic.Join("b", quiet)
	feed(t, topic, s, 1, 3)
	var held []Delivery
	for seq := uint64(1); seq <= 3; seq++ {
		held = append(held, take(t, a, seq), take(t, b, seq))
		require.Equal(t, seq == 3, held[0].run.buf == nil, "seq %d", seq)
	}
	a.Return(held[0])
	require.True(t, b.Claim(&held[1], "key"))
	require.False(t, b.Claim(&held[3], "key"))
	require.Equal(t, "1", string(take(t, a, 1).Message()))
	require.Equal(t, "2", string(held[3].Message()))
}

func TestRun_DroppedGroupReleasesMemory(t *testing.T) {
	topic, s := newTestTopic()
	a := topic.Join("a", quiet)
	topic.Initialize("b")
	feed(t, topic, s, 1, 2)
	take(t, a, 1)
	d := take(t, a, 2)
	require.NotNil(t, d.run.buf)
	topic.Drop("b")
	require.Nil(t, d.run.buf)
}

func TestRun_SingleMessageIsNotCopied(t *testing.T) {
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

// flood appends n messages, which m takes and settles, and returns how many of them are still in memory. With again, m
// takes and returns all of them once before.
func flood(t *testing.T, topic *Topic, s Source, m *Member, n int, again bool) int64 {
	t.Helper()
	var alive atomic.Int64
	take := func(then func(Delivery)) {
		d, _, ok := m.Take()
		require.True(t, ok)
		then(d)
	}
	for seq := range n {
		msg := make([]byte, 1<<10)
		alive.Add(1)
		runtime.AddCleanup(&msg[0], func(struct{}) { alive.Add(-1) }, struct{}{})
		require.NotZero(t, topic.window.Take(flow.Amount{Messages: 1, Bytes: each}))
		topic.Append(s, uint64(100+seq), [][]byte{msg}, topicTime, true)
		if !again {
			take(m.Settle)
		}
	}
	if again {
		var held []Delivery
		for range n {
			take(func(d Delivery) { held = append(held, d) })
		}
		for _, d := range held {
			m.Return(d)
		}
		for range n {
			take(m.Settle)
		}
	}
	for range 100 { // cleanups run some time after the collection that found them due
		runtime.GC()
		if alive.Load() == 0 {
			break
		}
		runtime.Gosched()
	}
	return alive.Load()
}

func TestRun_SettledMessagesAreGarbage(t *testing.T) {
	for name, before := range map[string]func(*testing.T, *Topic, *source, *Member) any{
		"nothing before": func(*testing.T, *Topic, *source, *Member) any { return nil },
		"one was returned and taken again": func(t *testing.T, topic *Topic, s *source, m *Member) any {
			feed(t, topic, s, 1, 1)
			m.Return(take(t, m, 1))
			m.Settle(take(t, m, 1))
			return nil
		},
		"a group was dropped under its member": func(_ *testing.T, topic *Topic, _ *source, _ *Member) any {
			other := topic.Join("other", quiet)
			topic.Drop("other")
			return other
		},
		"one is stuck with its handler": func(t *testing.T, topic *Topic, s *source, m *Member) any {
			feed(t, topic, s, 1, 1)
			return take(t, m, 1)
		},
	} {
		t.Run(name, func(t *testing.T) {
			topic, s := newTestTopic()
			m := topic.Join("g", quiet)
			held := before(t, topic, s, m)
			require.Zero(t, flood(t, topic, s, m, 200, false))
			require.Zero(t, flood(t, topic, s, m, 200, true))
			runtime.KeepAlive(held)
			runtime.KeepAlive(topic)
		})
	}
}

func TestDelivery_MessageBelongsToOneGroup(t *testing.T) {
	topic, s := newTestTopic()
	a, b := topic.Join("a", quiet), topic.Join("b", quiet)
	for seq := uint64(1); seq <= 2; seq++ {
		feed(t, topic, s, seq, seq)
		copy(take(t, a, seq).Message(), "x") // a handler may write to what it got
		take(t, b, seq)
	}
}
