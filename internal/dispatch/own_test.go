package dispatch

import (
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// silent is a source that nobody asks.
type silent struct{}

func (silent) Settled(uint64, uint64)  {}
func (silent) Refused(uint64, Refusal) {}

// arrive appends n messages that lie in one buffer, and tells when nothing refers to that any more.
func arrive(topic *Topic, n int) (freed *atomic.Bool) {
	freed = &atomic.Bool{}
	buffer := make([]byte, n*100)
	runtime.AddCleanup(&buffer[0], func(b *atomic.Bool) { b.Store(true) }, freed)
	msgs := make([][]byte, n)
	for i := range msgs {
		msgs[i] = buffer[i*100 : i*100+100]
	}
	topic.Append(silent{}, 1, msgs, topicTime)
	return freed
}

// TestAWaitingMessageKeepsOnlyItself: of a run that arrived in one buffer, a message that was returned, or that waits for
// its key, keeps a copy and not the buffer.
func TestAWaitingMessageKeepsOnlyItself(t *testing.T) {
	for name, wait := range map[string]func(*Member, Delivery){
		"returned":            func(m *Member, d Delivery) { m.Return(d) },
		"waiting for its key": func(m *Member, d Delivery) { m.Claim(&d, "key") },
	} {
		t.Run(name, func(t *testing.T) {
			topic := NewTopic("a", NewWindow(Amount{1000, 1 << 20}, NewBudget(1<<20)), func(int) int { return 1 })
			m := topic.Join("g", func() {})
			topic.Append(silent{}, 1, [][]byte{[]byte("1")}, topicTime)
			holder := take(t, m, 1)
			require.True(t, m.Claim(&holder, "key"))
			freed := arrive(topic, 100)
			var taken []Delivery
			for range 100 {
				d, ok := m.Take()
				require.True(t, ok)
				taken = append(taken, d)
			}
			for i, d := range taken {
				if i%50 == 0 {
					wait(m, d)
				} else {
					m.Settle(d)
				}
			}
			taken = nil
			for range 100 {
				if runtime.GC(); freed.Load() {
					break
				}
				runtime.Gosched()
			}
			require.True(t, freed.Load())
			runtime.KeepAlive(topic)
		})
	}
}
