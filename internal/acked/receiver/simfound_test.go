package receiver

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/session"
	"github.com/buffstreams/watermill-buffstreams/internal/wire"
	"github.com/buffstreams/watermill-buffstreams/store"
)

// remembered is a DedupeStore that knows what an earlier life has saved.
type remembered map[store.StreamID]store.StreamState

func (r remembered) Load(id store.StreamID) (store.StreamState, bool, error) {
	state, ok := r[id]
	return state, ok, nil
}

func (r remembered) Save(map[store.StreamID]store.StreamState) error { return nil }
func (r remembered) Forget(store.StreamID) error                     { return nil }

// A predecessor comes back first after a restart of the listener, with a stream of which nothing was saved. What was saved of
// its other streams says that it has a successor. Found by the simulation.
func TestTheStoreFencesWhoCameFirst(t *testing.T) {
	known := store.StreamID{Publisher: [16]byte{1}, Stream: 2, Topic: "b"}
	e := listen(t, Config{Dedupe: remembered{known: {Epoch: 2}}})
	first := opens(t, e, openOf(1))
	require.Len(t, first.handles, 1)
	f := openOf(1)
	f.Stream, f.Topic = known.Stream, known.Topic
	_, refused := e.open(f, "")
	require.NotNil(t, refused)
	require.Equal(t, wire.Code_CODE_FENCED, session.CodeOf(refused))
	require.False(t, first.handles[1].on(first), "its other streams are fenced as well")
	f.Epoch = 2
	_, refused = e.open(f, "")
	require.Nil(t, refused)
}

// A stream of a topic without a consumer moves to a second connection, is forgotten with that, and is opened on a third. The
// late end of the first, which still knows the stream as it was, takes nothing from what the third has received. Found by
// the simulation, whose model was wrong.
func TestALateEndForgetsNoSuccessor(t *testing.T) {
	e := listen(t, Config{})
	open := func(epoch uint64) *conn {
		f := openOf(1)
		f.Epoch = epoch
		return opens(t, e, f)
	}
	old := open(1)
	open(2).end(nil)
	now := open(2)
	s := now.handles[1]
	require.NotSame(t, old.handles[1], s, "it was forgotten once")

	e.Topic("a").Join("g", func() {})
	require.NoError(t, s.publish(now, &session.PublishFrame{Handle: 1, First: 1, Messages: [][]byte{{1}}, Bytes: 3}))
	old.end(nil)
	now.end(nil)
	require.Same(t, s, open(2).handles[1])
	require.Equal(t, uint64(2), s.in.Next(), "what it has is not asked for again")
}
