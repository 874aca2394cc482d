package dispatch

import (
	"slices"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/flow"
)

// check compares the books of the topic with what its members have.
func (w *walk) check() {
	var held flow.Amount
	for _, s := range w.sources {
		for _, n := range s.lengths {
			held.Messages, held.Bytes = held.Messages+1, held.Bytes+walkSize(n)
		}
	}
	if w.ended {
		held = flow.Amount{}
		require.Nil(w.t, w.topic.beside.timer)
		require.Nil(w.t, w.topic.union.timer)
	}
	require.Equal(w.t, held, w.topic.window.Held(), "what is not reported is held")
	require.Nil(w.t, w.topic.skipped, "all that was skipped is reported")
	require.Equal(w.t, len(w.walkers), w.topic.members)
	if v := w.topic.vacant; v != nil {
		require.Contains(w.t, w.topic.groups, v)
		require.Empty(w.t, v.members)
		require.Empty(w.t, v.name)
	}
	for _, g := range w.topic.groups {
		w.checkGroup(g)
	}
}

func (w *walk) checkGroup(g *group) {
	require.False(w.t, g.dropped)
	var members []*Member
	taken, told, keys := 0, 0, 0
	var unclaimed []uint64
	for _, m := range w.walkers {
		if m.group != g {
			continue
		}
		members = append(members, m.Member)
		w.checkWaiting(g, m.Member)
		taken += len(m.taken) + len(m.unclaimed)
		keys += holders(m.taken) + holders(m.handed)
		if m.told && !m.stopped && !m.draining {
			told++
		}
		for _, d := range m.unclaimed {
			unclaimed = append(unclaimed, d.pos())
		}
	}
	slices.Sort(unclaimed)
	require.ElementsMatch(w.t, members, g.members)
	require.EqualValues(w.t, len(members), g.memberCount.Load())
	require.True(w.t, slices.Equal(unclaimed, g.unclaimed), "%d, the members have %d", g.unclaimed, unclaimed)
	require.Equal(w.t, g.backlog()+taken, int(g.unsettled.Load()), "each message is in one place")
	require.Len(w.t, g.keys, keys+holders(g.returned), "each key that is held has a holder")
	require.True(w.t, len(g.waiters) == 0 || g.ready() <= told, "%d wait, %d are ready, %d were notified", len(g.waiters), g.ready(), told)
	require.True(w.t, slices.IsSortedFunc(g.returned, comparePos))
	if len(g.early) > 0 {
		require.True(w.t, g.keyUnknownBefore(g.early[0].pos()), "a claim waits for something")
	}
	withdrawn, index := 0, g.index
	for e := g.cursor; e.run != nil; e, index = e.next, 0 {
		if e.run.withdrawn {
			withdrawn += int(e.next.position(w.topic)-e.run.pos) - index
		}
	}
	require.Equal(w.t, withdrawn, g.passed)
}

func (w *walk) checkWaiting(g *group, m *Member) {
	places := 0
	for _, o := range g.waiters {
		if o == m {
			places++
		}
	}
	assert.Equal(w.t, m.waiting, places == 1, "%d places", places)
	require.LessOrEqual(w.t, places, 1)
	require.False(w.t, m.waiting && (m.stopped || m.draining))
}

// holders counts the deliveries that hold their key.
func holders(ds []Delivery) (n int) {
	for _, d := range ds {
		if d.key != nil {
			n++
		}
	}
	return n
}
