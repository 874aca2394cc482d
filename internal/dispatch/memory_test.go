package dispatch

import (
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// flood appends and settles n large messages and returns how many of them are still in memory.
func flood(t *testing.T, topic *Topic, s Source, members []*Member, n int) int64 {
	t.Helper()
	var alive atomic.Int64
	for seq := range n {
		msg := make([]byte, 1<<10)
		alive.Add(1)
		runtime.AddCleanup(&msg[0], func(struct{}) { alive.Add(-1) }, struct{}{})
		require.NotZero(t, topic.window.Take(Amount{Messages: 1, Bytes: each}))
		topic.Append(s, uint64(100+seq), [][]byte{msg}, time.Time{})
		for _, m := range members {
			d, ok := m.Take()
			require.True(t, ok)
			m.Settle(d)
		}
	}
	for range 100 { // cleanups run some time after the collection that found them due
		runtime.GC()
		if alive.Load() < 5 {
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
			require.Less(t, flood(t, topic, s, []*Member{m}, 200), int64(5))
			runtime.KeepAlive(held)
			runtime.KeepAlive(topic)
		})
	}
}
