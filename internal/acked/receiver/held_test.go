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

// A stream is forgotten, as its topic has no group, between the look for it in memory and its Open: the DedupeStore was
// not asked, and what it knows must not be passed over.
func TestReceiver_AsksTheStoreForWhatIsForgottenMeanwhile(t *testing.T) {
	m := newMemoryStore()
	r := listen(t, Config{Dedupe: m})
	o := openOf(1)
	id := store.StreamID{Publisher: [16]byte(o.Publisher), Stream: o.Stream, Topic: o.Topic}
	m.states[id] = store.StreamState{Epoch: o.Epoch, Secret: [16]byte(o.Secret), Settled: []store.Range{{First: 1, Last: 2}}}
	s, _, refused := r.open(o, "")
	require.Nil(t, refused)
	memory, err := r.recall(id)
	require.NoError(t, err)
	require.True(t, memory.held)
	s.opens = 0 // it was attached, and detached
	require.True(t, r.removeUnused(s))
	_, _, _, stale := r.openRecalled(o, "", id, memory)
	require.True(t, stale)
	s, _, refused = r.open(o, "")
	require.Nil(t, refused)
	require.Equal(t, []store.Range{{First: 1, Last: 2}}, s.in.Settled(nil))
}
