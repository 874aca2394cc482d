package pool

import (
	"testing"

	"github.com/stretchr/testify/require"

	wire "github.com/buffstreams/watermill-buffstreams/proto"
)

// remembered is a DedupeStore that knows what an earlier life has saved.
type remembered map[StreamID]StreamState

func (r remembered) Load(id StreamID) (StreamState, bool, error) {
	state, ok := r[id]
	return state, ok, nil
}

func (r remembered) Save(map[StreamID]StreamState) error { return nil }
func (r remembered) Forget(StreamID) error               { return nil }

// A predecessor comes back first after a restart of the listener, with a stream of which nothing was saved. What was saved of
// its other streams says that it has a successor. Found by the simulation.
func TestTheStoreFencesWhoCameFirst(t *testing.T) {
	known := StreamID{Publisher: [16]byte{1}, Stream: 2, Topic: "b"}
	_, _, e, _ := newPair(t, AckedConfig{Dedupe: remembered{known: {Epoch: 2}}})
	first := opens(t, e, openOf(1))
	require.Len(t, first.handles, 1)
	f := openOf(1)
	f.Stream, f.Topic = known.Stream, known.Topic
	_, refused := e.open(f, "")
	require.NotNil(t, refused)
	require.Equal(t, wire.Code_CODE_FENCED, refused.Code)
	require.False(t, first.handles[1].on(first), "its other streams are fenced as well")
	f.Epoch = 2
	_, refused = e.open(f, "")
	require.Nil(t, refused)
}
