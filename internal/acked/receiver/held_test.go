package receiver

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/session"
	"github.com/buffstreams/watermill-buffstreams/store"
)

// A group is dropped while its member has a message, and the connection ends. A stream that began anew would get the
// message once more, for the next group; and a DedupeStore, which the old one tells of the end, would be told of less
// by the new one.
func TestStream_StaysWhileADroppedGroupHasMessages(t *testing.T) {
	for name, dedupe := range map[string]store.DedupeStore{"memory": nil, "store": newMemoryStore()} {
		t.Run(name, func(t *testing.T) {
			r := listen(t, Config{Dedupe: dedupe})
			m := join(r, "a")
			c := opensMoving(t, r, 1, 1, 1)
			receives(t, c, 1, 1, "one", "two")
			one, _, ok := m.Take()
			require.True(t, ok)
			s := c.handles[1]
			r.Topic("a").Drop("g")
			require.True(t, s.topic.Unused())
			c.terminate(nil)
			require.True(t, r.knows(s.id))
			again := opensMoving(t, r, 1, 1, 1)
			require.Same(t, s, again.handles[1])
			require.EqualValues(t, 3, locked(s, (*session.Inbound).Next), "nothing of it is sent again")
			again.terminate(nil)
			m.Settle(one)
			require.False(t, r.knows(s.id), "nothing holds it any more")
			m.Leave()
		})
	}
}
