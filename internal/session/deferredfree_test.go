package session

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/flow"
)

// TestDeferredFree_MemoryThatIsBeingWrittenIsNotReused: a peer may ack what a flusher is still writing, from what
// Output has returned.
func TestDeferredFree_MemoryThatIsBeingWrittenIsNotReused(t *testing.T) {
	for name, size := range map[string]int{"small": 100, "large": 2 * largeMessage} {
		t.Run(name, func(t *testing.T) {
			const count = 8 << 10 / 100 // enough small ones for a buffer that would be used again
			p := newPair(t, Window{Messages: 1000, Bytes: 100 << 20, Budget: flow.NewBudget(100 << 20)}, muchRoom)
			p.connect()
			p.flow()
			sizes := make([]int, count)
			for i := range sizes {
				sizes[i] = size
			}
			p.enqueue("a", sizes...) // opens the stream, and leaves chunks behind that are as large
			p.flow()
			s := p.remote.stream("a")
			p.remote.settle(s, s.order...)
			p.flow()

			o := p.client.Stream("a")
			require.NoError(t, o.acked(&AckFrame{
				Handle: o.handle, Messages: o.credit.messages + 1000, Bytes: o.credit.bytes + 100<<20,
			}))
			p.enqueue("a", sizes...)
			_, segments, _ := p.client.Output(nil, 1<<30)
			require.NotEmpty(t, segments)
			var before [][]byte
			for _, segment := range segments {
				before = append(before, bytes.Clone(segment.Body))
			}
			last := o.next - 1
			require.NoError(t, o.acked(&AckFrame{Handle: o.handle, Next: last + 1, Settled: []uint64{1, last}}))
			require.Zero(t, o.Pending())
			p.enqueue("b", sizes...)
			for i, segment := range segments {
				require.True(t, bytes.Equal(before[i], segment.Body), "segment %d", i)
			}
		})
	}
}
