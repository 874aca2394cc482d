package dispatch

import (
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/flow"
)

// flood appends and settles n messages, through the hands of m, and returns how many of them are still in memory. With
// again, all are taken and returned once before.
func flood(t *testing.T, topic *Topic, s Source, m *Member, n int, again bool) int64 {
	t.Helper()
	var alive atomic.Int64
	take := func(then func(Delivery)) {
		d, ok := m.Take()
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

func TestSettledMessagesAreGarbage(t *testing.T) {
	for name, before := range map[string]func(*testing.T, *Topic, *source, *Member) any{
		"nothing before": func(*testing.T, *Topic, *source, *Member) any { return nil },
		"one was returned and taken again": func(t *testing.T, topic *Topic, s *source, m *Member) any {
			feed(t, topic, s, 1, 1)
			m.Return(take(t, m, 1))
			m.Settle(take(t, m, 1))
			return nil
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
