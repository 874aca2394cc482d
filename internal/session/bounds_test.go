package session

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/wire"
)

// Of many topics that had a stream once, the groups of those are remembered that have one, and of the topic that was heard of last.
func TestGroups_OfManyTopicsAreForgotten(t *testing.T) {
	p := newPair(t, roomy, muchRoom)
	for _, topic := range []string{"used", "used too"} {
		p.client.Stream(topic)
		p.client.noteGroups(topic, 7)
	}
	most := leastGroupsKept + 2*2
	for i := range most - 2 {
		p.client.noteGroups(fmt.Sprint(i), 8)
	}
	require.Len(t, p.client.groups, most)
	digest, ok := p.client.Groups("0")
	require.Equal(t, []any{uint64(8), true}, []any{digest, ok})
	p.client.noteGroups("last", 9)
	require.Equal(t, groupsSeen{"used": 7, "used too": 7, "last": 9}, p.client.groups)
	_, ok = p.client.Groups("0")
	require.False(t, ok)
}

// Many streams that get no credit are asked about a few in each Tick: a receiver ends a connection with too many pings.
func TestExplain_AsksAboutAFewStreamsInATick(t *testing.T) {
	p := newPair(t, roomy, Amount{})
	p.connect()
	for i := range maxAsks + 3 {
		topic := fmt.Sprint(i)
		p.enqueue(topic, 1)
		p.wait(topic, Handled, 1, 1)
	}
	p.flow()
	for _, asked := range []int{maxAsks, maxAsks + 3, maxAsks + 3} {
		require.NoError(t, p.client.Tick(p.now, late))
		p.flow()
		require.Len(t, frames[*wire.Ping](p), asked)
	}
	p.now = p.now.Add(askEvery)
	require.NoError(t, p.client.Tick(p.now, late))
	p.flow()
	require.Len(t, frames[*wire.Ping](p), 2*maxAsks+3)
}

// An age has the mark of the last message that had one, each mark as much later than the one before as all that are left need.
func TestAges_MarksAreSpaced(t *testing.T) {
	var a ages
	for seq := uint64(1); seq < maxMarks; seq++ {
		a.note(seq, int64(seq))
		require.Len(t, a.marks, int(seq))
	}
	a.note(maxMarks, maxMarks+1)
	require.Equal(t, int64(2), a.spacing, "they span 256 ns, and every second one is to go")
	require.Equal(t, []mark{{1, 1}, {4, 4}, {7, 7}}, a.marks[:3])
	last := a.marks[len(a.marks)-1]
	a.note(maxMarks+1, last.at+2)
	require.Equal(t, last, a.marks[len(a.marks)-1], "it is no later than the spacing")
	a.note(maxMarks+2, last.at+3)
	require.Equal(t, mark{maxMarks + 2, last.at + 3}, a.marks[len(a.marks)-1])
	require.Equal(t, time.Unix(0, 4), a.of(6))
	require.Equal(t, time.Unix(0, 7), a.of(7))
	a.drop(6)
	require.Equal(t, mark{4, 4}, a.marks[0], "it is that of 6")
	require.Zero(t, a.of(3))
	a.clear()
	require.Zero(t, cap(a.marks), "an idle stream keeps no memory")
	a.note(9, 1)
	a.note(10, 2)
	require.Len(t, a.marks, 2)
	a.clear()
	require.NotZero(t, cap(a.marks))
}

// Memory that was given back is not reached from what is kept for the next.
func TestDeferredFree_KeepsNothing(t *testing.T) {
	d := deferredFree{buffers: [][]byte{make([]byte, 10), make([]byte, 20)}}
	d.free()
	require.Empty(t, d.buffers)
	require.Equal(t, [][]byte{nil, nil}, d.buffers[:2])
}
