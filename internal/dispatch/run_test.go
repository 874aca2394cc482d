package dispatch

import (
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/buffers"
	"github.com/buffstreams/watermill-buffstreams/internal/flow"
)

// The memory of a run is free when every group has settled or detached all of its messages.
func TestRun_SlowMessageKeepsOnlyItself(t *testing.T) {
	topic, s := newTestTopic()
	a, b := topic.Join("a", quiet), topic.Join("b", quiet)
	feed(t, topic, s, 1, 3)
	a1, b1 := take(t, a, 1), take(t, b, 1)
	a2, b2 := take(t, a, 2), take(t, b, 2)
	a3, b3 := take(t, a, 3), take(t, b, 3)
	a1.Detach()
	a.Return(a1)
	a2.Detach()
	a2.Detach()
	require.True(t, b.Claim(&b1, "key"))
	require.False(t, b.Claim(&b2, "key"), "it waits for its key, detached")
	a.Settle(a3)
	b.Settle(b3)
	require.NotNil(t, b1.run.buf)
	b.Settle(b1)
	require.Nil(t, b1.run.buf)
	take(t, a, 1)
	take(t, b, 2)
	a.Settle(a2)
}

func TestRun_DroppedGroupReleasesMemory(t *testing.T) {
	topic, s := newTestTopic()
	a := topic.Join("a", quiet)
	b := topic.Join("b", quiet)
	feed(t, topic, s, 1, 3)
	take(t, b, 1)
	returned := take(t, b, 2)
	for seq := uint64(1); seq <= 3; seq++ {
		a.Settle(take(t, a, seq))
	}
	b.Return(returned)
	topic.Drop("b")
	require.NotNil(t, returned.run.buf, "a handler has the first")
	require.Equal(t, int64(1), returned.run.views.Load())
}

// A large message stays in the memory that it was read into, and that is used again.
func TestRun_LargeMessageIsNotCopied(t *testing.T) {
	topic, s := newTestTopic()
	m := topic.Join("a", quiet)
	memory := append(buffers.Get(1<<16), "a frame: 1"...)
	require.NotZero(t, topic.window.Take(flow.Amount{Messages: 1, Bytes: each}))
	topic.Append(s, 1, [][]byte{memory[len(memory)-1:]}, topicTime, memory)
	d := take(t, m, 1)
	require.Same(t, &memory[len(memory)-1], &d.arrived()[0])
	require.NotSame(t, &memory[len(memory)-1], &d.Message()[0])
	m.Settle(d)
	require.Same(t, &memory[0], &buffers.Get(1 << 16)[:1][0])
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
		msg := make([]byte, 1000) // no size that package buffers keeps
		alive.Add(1)
		runtime.AddCleanup(&msg[0], func(struct{}) { alive.Add(-1) }, struct{}{})
		require.NotZero(t, topic.window.Take(flow.Amount{Messages: 1, Bytes: each}))
		topic.Append(s, uint64(100+seq), [][]byte{msg}, topicTime, msg)
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

// A handler may write to what it got: no other handler sees that, nor the same one when it gets the message once more.
func TestDelivery_MessageIsAsItArrived(t *testing.T) {
	for name, change := range map[string]func(m *Member, d Delivery) Delivery{
		"at hand":  func(_ *Member, d Delivery) Delivery { return d },
		"detached": func(_ *Member, d Delivery) Delivery { d.Detach(); return d },
		"returned": func(m *Member, d Delivery) Delivery { m.Return(d); d, _, _ = m.Take(); return d },
	} {
		t.Run(name, func(t *testing.T) {
			topic, s := newTestTopic()
			a := topic.Join("a", quiet)
			topic.Join("b", quiet)
			feed(t, topic, s, 1, 2)
			feed(t, topic, s, 3, 3) // alone in its run
			topic.Drop("b")
			require.NotZero(t, topic.window.Take(flow.Amount{Messages: 1, Bytes: each}))
			topic.Append(s, 4, [][]byte{[]byte("4")}, topicTime, make([]byte, 1))
			b := topic.Join("b", quiet)
			feed(t, topic, s, 5, 6)
			for seq := uint64(1); seq <= 6; seq++ {
				d, _, ok := a.Take()
				require.True(t, ok)
				for range 3 {
					copy(d.Message(), "x")
					d = change(a, d)
				}
				require.Equal(t, fmt.Sprint(seq), string(d.Message()))
				a.Settle(d)
			}
			take(t, b, 5)
			take(t, b, 6)
		})
	}
}

// Memory that is given along is kept for a single message only: several have none of their own.
func TestRun_OfSeveralMessagesIsCopied(t *testing.T) {
	memory := []byte("onetwo")
	r := newRun(newSource(), 1, [][]byte{memory[:3], memory[3:]}, topicTime, memory)
	require.Equal(t, 2, r.count())
	clear(memory)
	require.Equal(t, []string{"one", "two"}, []string{string(r.message(0)), string(r.message(1))})
}
