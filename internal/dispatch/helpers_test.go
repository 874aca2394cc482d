package dispatch

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/flow"
)

// source records what is reported to it, and counts every sequence, so that a message reported twice shows.
type source struct {
	mu      sync.Mutex
	settled map[uint64]int
	refused map[uint64][]Refusal
	order   []uint64
	alone   bool // no sender keeps its messages
}

// takeAnyToClaim is Take for a member that orders messages by key.
func takeAnyToClaim(m *Member) (d Delivery, deferAcks, ok bool) {
	deferAcks, ok = m.TakeInto(&d, true)
	return d, deferAcks, ok
}

func newSource() *source {
	return &source{settled: map[uint64]int{}, refused: map[uint64][]Refusal{}}
}

func (s *source) Kept() bool { return !s.alone }

func (s *source) Settled(first, last uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for seq := first; seq <= last; seq++ {
		s.settled[seq]++
		s.order = append(s.order, seq)
	}
}

func (s *source) Refused(seq uint64, r Refusal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refused[seq] = append(s.refused[seq], r)
	s.order = append(s.order, seq)
}

// reported lists what was reported, in that order.
func (s *source) reported() []uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]uint64{}, s.order...)
}

// signal is a member's notify: it counts.
type signal struct{ n int }

func (s *signal) notify() { s.n++ }

func quiet() {}

const each = 10 // what a message takes of the window in these tests

var topicTime = time.Unix(1, 0) // when messages arrive

func sized(int) int { return each }

// windowRoom is what the windows of these tests hold.
var windowRoom = flow.Amount{Messages: 1000, Bytes: 1000 * each}

func newTestTopic(declared ...string) (*Topic, *source) {
	w := flow.NewWindow(windowRoom, flow.NewBudget(10*windowRoom.Bytes))
	return NewTopic("topic", w, sized, declared...), newSource()
}

// feed reserves room and appends messages first to last, whose content is their sequence.
func feed(t testing.TB, topic *Topic, s Source, first, last uint64) {
	t.Helper()
	var msgs [][]byte
	for seq := first; seq <= last; seq++ {
		msgs = append(msgs, fmt.Appendf(nil, "%d", seq))
	}
	want := flow.Amount{Messages: len(msgs), Bytes: len(msgs) * each}
	if got := topic.window.Take(want); got != want {
		t.Fatalf("the window gave %+v of %+v", got, want)
	}
	topic.Append(s, first, msgs, topicTime, nil)
}

func seqOf(d Delivery) uint64 { return d.run.first + uint64(d.index) }

// take takes the next message and checks that it is seq.
func take(t testing.TB, m *Member, seq uint64) Delivery {
	t.Helper()
	d, _, ok := m.Take()
	require.True(t, ok, "there is a message")
	require.Equal(t, seq, seqOf(d))
	require.Equal(t, fmt.Sprint(seq), string(d.Message()))
	return d
}

func takeNone(t testing.TB, m *Member) {
	t.Helper()
	d, _, ok := m.Take()
	require.False(t, ok, "%v", d)
	require.Zero(t, d)
}

func requireFull(t testing.TB, topic *Topic) {
	t.Helper()
	require.Zero(t, topic.window.Held(), "the window has everything back, and so has its budget")
	for _, g := range topic.Stats().Groups {
		require.Zero(t, g.Unsettled, "group %q has settled everything", g.Name)
	}
}

func seqRange(first, last uint64) []uint64 {
	out := []uint64{}
	for seq := first; seq <= last; seq++ {
		out = append(out, seq)
	}
	return out
}
