package dispatch

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/flow"
)

// script takes decisions from a fuzzer's input. After the end of the input all of them are 0.
type script []byte

func (s *script) next(n int) int {
	if len(*s) == 0 || n <= 0 {
		return 0
	}
	b := int((*s)[0])
	*s = (*s)[1:]
	return b % n
}

const maxScript = 1000

// FuzzTopic compares members of several groups with a model: each group's messages that no member has, in the order of
// the log. Take returns the first of them, and each message is reported once, when every group has settled it.
func FuzzTopic(f *testing.F) {
	f.Add([]byte{0, 0, 1, 5, 2, 0, 2, 0, 3, 0, 0, 4, 0, 0})
	f.Add([]byte{0, 0, 0, 1, 0, 2, 1, 9, 2, 0, 2, 1, 5, 0, 0, 6, 1, 0, 7, 1, 3, 1, 0, 8, 2})
	f.Add([]byte{0, 0, 0, 1, 0, 2, 2, 0, 0, 2, 0, 0, 2, 0, 0, 7, 0, 0, 0, 0, 7, 0, 0, 0, 0, 2, 0, 0, 2, 0, 0})
	f.Add([]byte{0, 2, 0, 3, 1, 4, 6, 0, 1, 3, 6, 0, 0, 3, 1, 2, 2, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > maxScript {
			t.Skip("long")
		}
		m := newTopicModel(t)
		for in := script(data); len(in) > 0; {
			m.step(&in)
			m.check()
		}
		m.finish()
	})
}

// topicModel knows, for each group, what it has still to settle: what waits, and what members have.
type topicModel struct {
	t      *testing.T
	topic  *Topic
	source *source
	total  uint64
	groups map[string]*modelGroup
	left   map[uint64]int // groups that have not settled a message
	bad    map[uint64]bool
}

type modelGroup struct {
	name    string
	waiting map[uint64]bool
	members []*modelMember
}

type modelMember struct {
	member *Member
	taken  []Delivery
}

func newTopicModel(t *testing.T) *topicModel {
	topic, source := newTestTopic()
	return &topicModel{
		t: t, topic: topic, source: source, groups: map[string]*modelGroup{}, left: map[uint64]int{}, bad: map[uint64]bool{},
	}
}

func (m *topicModel) step(in *script) {
	op := in.next(9)
	g := m.groups[fmt.Sprint("g", in.next(3))]
	switch {
	case op == 0:
		m.join(fmt.Sprint("g", in.next(3)))
	case op == 1 && len(m.groups) > 0:
		m.append(1 + in.next(6))
	case g == nil || len(g.members) == 0:
	case op < 4:
		m.take(g, g.members[in.next(len(g.members))])
	case op == 8:
		m.leave(g, in.next(len(g.members)))
	default:
		m.end(g, g.members[in.next(len(g.members))], op, in)
	}
}

func (m *topicModel) join(name string) {
	g := m.groups[name]
	if g == nil {
		g = &modelGroup{name: name, waiting: map[uint64]bool{}}
		m.groups[name] = g
	}
	g.members = append(g.members, &modelMember{member: m.topic.Join(name, quiet)})
}

// append reserves room in the window first, as every caller of Append must.
func (m *topicModel) append(n int) {
	got := m.topic.window.Take(flow.Amount{Messages: n, Bytes: n * each})
	n = min(got.Messages, got.Bytes/each)
	m.topic.window.Release(flow.Amount{Messages: got.Messages - n, Bytes: got.Bytes - n*each})
	var msgs [][]byte
	for i := range n {
		seq := m.total + 1 + uint64(i)
		msgs = append(msgs, fmt.Appendf(nil, "%d", seq))
		m.left[seq] = len(m.groups)
		for _, g := range m.groups {
			g.waiting[seq] = true
		}
	}
	m.topic.Append(m.source, m.total+1, msgs, topicTime, nil)
	m.total += uint64(n)
}

func (m *topicModel) take(g *modelGroup, member *modelMember) {
	d, _, ok := member.member.Take()
	require.Equal(m.t, len(g.waiting) > 0, ok, "%s has %d waiting", g.name, len(g.waiting))
	if !ok {
		return
	}
	for seq := range g.waiting {
		require.LessOrEqual(m.t, seqOf(d), seq, "taken out of order")
	}
	require.True(m.t, g.waiting[seqOf(d)], "%d was not there to take", seqOf(d))
	require.Equal(m.t, fmt.Sprint(seqOf(d)), string(d.Message()))
	delete(g.waiting, seqOf(d))
	member.taken = append(member.taken, d)
}

// end settles, refuses or gives back one delivery of a member.
func (m *topicModel) end(g *modelGroup, member *modelMember, op int, in *script) {
	if len(member.taken) == 0 {
		return
	}
	i := in.next(len(member.taken))
	d := member.taken[i]
	member.taken = append(member.taken[:i], member.taken[i+1:]...)
	seq := seqOf(d)
	switch op {
	case 4, 5:
		member.member.Settle(d)
		m.left[seq]--
	case 6:
		member.member.Refuse(d, Refusal{Reason: "no"})
		m.left[seq]--
		m.bad[seq] = true
	default:
		if in.next(2) == 0 {
			member.member.Return(d)
		} else {
			member.member.Yield(d)
		}
		g.waiting[seq] = true
	}
}

func (m *topicModel) leave(g *modelGroup, i int) {
	member := g.members[i]
	for _, d := range member.taken {
		member.member.Return(d)
		g.waiting[seqOf(d)] = true
	}
	member.member.Leave()
	_, _, ok := member.member.Take()
	require.False(m.t, ok)
	g.members = append(g.members[:i], g.members[i+1:]...)
}

// drop ends a group, for which the topic settles what no member has.
func (m *topicModel) drop(g *modelGroup) {
	for len(g.members) > 0 {
		m.leave(g, 0)
	}
	m.topic.Drop(g.name)
	for seq := range g.waiting {
		m.left[seq]--
	}
	delete(m.groups, g.name)
}

func (m *topicModel) check() {
	reported := 0
	for seq := uint64(1); seq <= m.total; seq++ {
		settled, refused := m.source.settled[seq], len(m.source.refused[seq])
		done := m.left[seq] == 0
		require.Equal(m.t, done && !m.bad[seq], settled == 1, "%d: %d groups left, settled %d times", seq, m.left[seq], settled)
		require.Equal(m.t, done && m.bad[seq], refused == 1, "%d: %d groups left, refused %d times", seq, m.left[seq], refused)
		reported += settled + refused
	}
	require.Len(m.t, m.source.order, reported)
	for name, g := range m.groups {
		require.Equal(m.t, len(g.waiting), m.topic.Backlog(name))
	}
	w := m.topic.window
	held := (int(m.total) - reported) * each
	require.Equal(m.t, held, w.Held().Bytes)
}

func (m *topicModel) finish() {
	for _, g := range m.groups {
		m.drop(g)
		m.check()
	}
	requireFull(m.t, m.topic)
}
