package dispatch

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/flow"
)

// walkSource is a source of every kind at once. It notes what became of each message.
type walkSource struct {
	walk          *walk
	kept, revoked bool
	remembers     bool
	next          uint64
	lengths       map[uint64]int // of the messages that were not reported
	runs          []*run
	refused       int
}

func (s *walkSource) Kept() bool      { return s.kept }
func (s *walkSource) Revoked() bool   { return s.revoked }
func (s *walkSource) Remembers() bool { return s.remembers }

func (s *walkSource) Knew(group string, seq uint64) bool {
	return s.remembers && (int(seq)+len(group))%5 == 0 && group != "b"
}

func (s *walkSource) SettledBy(group string, first, last uint64) {
	require.NotEmpty(s.walk.t, group)
	require.LessOrEqual(s.walk.t, first, last)
}

func (s *walkSource) Settled(first, last uint64) { s.Returned(first, last, false) }

func (s *walkSource) Refused(seq uint64, _ Refusal) {
	s.refused++
	s.Returned(seq, seq, false)
}

func (s *walkSource) Returned(first, last uint64, _ bool) {
	for seq := first; seq <= last; seq++ {
		require.Contains(s.walk.t, s.lengths, seq, "%d is reported once", seq)
		delete(s.lengths, seq)
	}
}

// walker is a member and what it has.
type walker struct {
	*Member
	told      bool // it was notified since it took last
	ending    bool
	taken     []Delivery
	unclaimed []Delivery
}

// walk does everything that users of a topic do, in any order.
type walk struct {
	t       *testing.T
	rng     *rand.Rand
	topic   *Topic
	keyed   bool
	names   []string
	sources []*walkSource
	walkers []*walker
	dropped int // by the end of the topic
	ended   bool
}

func walkSize(n int) int { return 10 + n }

func newWalk(t *testing.T, seed uint64) *walk {
	rng := rand.New(rand.NewPCG(seed, 5))
	room := flow.Amount{Messages: 1 << 20, Bytes: 1 << 30}
	w := &walk{t: t, rng: rng, keyed: rng.IntN(2) == 0}
	w.topic = NewTopic("topic", flow.NewWindow(room, flow.NewBudget(1<<30)), walkSize)
	if rng.IntN(2) == 0 {
		w.topic.AckImmediately()
	}
	w.names = [][]string{{""}, {"a"}, {"", "", "a"}, {"", "a", "b"}}[rng.IntN(4)]
	if rng.IntN(3) == 0 {
		w.topic.MakeEphemeral(func(dropped int) { w.dropped, w.ended = dropped, true })
	}
	for i := range 3 {
		w.sources = append(w.sources, &walkSource{
			walk: w, kept: i > 0, remembers: i == 2, next: 1, lengths: map[uint64]int{},
		})
	}
	return w
}

func (w *walk) step() {
	switch n := w.rng.IntN(60); {
	case n == 0:
		w.topic.Drop(w.name())
	case n == 1:
		w.topic.Initialize(w.name())
	case n == 2:
		w.source().revoked = true // its stream knows, and withdraws it a little later
	case n == 3:
		if s := w.source(); s.revoked {
			w.topic.Withdraw(s)
			s.revoked = false // it is another tenure's from now on
		}
	case n < 8:
		w.join()
	case n < 14:
		w.append(w.source(), 1+w.rng.IntN(4))
	case n == 14: // all subscriptions without a group are told to end, and have not noticed
		for _, m := range w.walkers {
			m.ending = m.ending || m.group.name == ""
		}
	case len(w.walkers) > 0:
		w.member(w.walkers[w.rng.IntN(len(w.walkers))], n)
	}
}

func (w *walk) name() string { return w.names[w.rng.IntN(len(w.names))] }

func (w *walk) source() *walkSource { return w.sources[w.rng.IntN(len(w.sources))] }

func (w *walk) join() {
	m := &walker{}
	if m.Member = w.topic.Join(w.name(), func() { m.told = true }); m.Member != nil {
		m.WhenEnding(func() bool { return m.ending })
		w.walkers = append(w.walkers, m)
	}
}

func (w *walk) append(s *walkSource, n int) {
	var msgs [][]byte
	var room flow.Amount
	for i := range n {
		msgs = append(msgs, make([]byte, w.rng.IntN(5)))
		room.Messages, room.Bytes = room.Messages+1, room.Bytes+walkSize(len(msgs[i]))
	}
	if s.revoked || !w.topic.completeLocked() && !w.ended {
		return
	}
	if got := w.topic.window.Take(room); got != room && !w.ended {
		w.t.Fatalf("the window gave %+v of %+v", got, room)
	}
	if !w.topic.Ended() {
		for i, m := range msgs {
			s.lengths[s.next+uint64(i)] = len(m)
		}
	}
	place := w.topic.tail
	w.topic.Append(s, s.next, msgs, topicTime, nil)
	if s.next += uint64(n); place.run != nil {
		s.runs = append(s.runs, place.run)
	}
}

func (w *walk) member(m *walker, n int) {
	switch {
	case n < 32:
		for w.take(m) && n < 22 { // all that there is
		}
	case n < 38 && len(m.unclaimed) > 0:
		i := w.rng.IntN(len(m.unclaimed))
		d := m.unclaimed[i]
		m.unclaimed = slices.Delete(m.unclaimed, i, i+1)
		if w.rng.IntN(4) == 0 {
			m.Forgo(&d)
		} else if !m.Claim(&d, fmt.Sprint(d.pos()%3)) {
			return
		}
		m.taken = append(m.taken, d)
	case n < 54:
		for len(m.taken) > 0 && w.end(m, n) {
		}
	case n == 54:
		m.StopTaking()
	case n == 55:
		m.BeginDrain()
	case n == 56:
		w.leave(m)
	case n == 57 && m.Recalled():
		m.taken = slices.DeleteFunc(m.taken, func(d Delivery) bool {
			must := m.MustReturn(&d)
			if must {
				m.Return(d)
			}
			return must
		})
	case n == 58:
		w.topic.Unkept()
	}
}

func (w *walk) take(m *walker) (ok bool) {
	var d Delivery
	if m.draining {
		d, ok = m.TakeUnkept(w.keyed)
	} else {
		m.told = false
		_, ok = m.TakeInto(&d, w.keyed)
	}
	switch {
	case !ok:
	case w.keyed && !d.HasKey():
		m.unclaimed = append(m.unclaimed, d)
	default:
		m.taken = append(m.taken, d)
	}
	return ok
}

// end ends one of the deliveries that a member has. It returns true if others are to follow.
func (w *walk) end(m *walker, n int) bool {
	i := w.rng.IntN(len(m.taken))
	d := m.taken[i]
	m.taken = slices.Delete(m.taken, i, i+1)
	switch {
	case n < 42:
		m.Settle(d)
		return true
	case n < 45:
		m.Settle(d)
	case n == 45:
		m.Refuse(d, Refusal{Reason: "no"})
	case n == 46:
		d.Detach()
		m.taken = append(m.taken, d)
	case n < 49:
		m.Yield(d)
	case n == 49:
		m.Return(d)
	case !m.HandOver(d):
		m.taken = append(m.taken, d)
	}
	return false
}

func (w *walk) leave(m *walker) {
	m.Return(append(m.taken, m.unclaimed...)...)
	m.Leave()
	w.walkers = slices.DeleteFunc(w.walkers, func(o *walker) bool { return o == m })
}

// finish ends all that there is. Nothing may be left of it.
func (w *walk) finish() {
	for len(w.walkers) > 0 {
		w.leave(w.walkers[0])
		w.check()
	}
	for _, s := range w.sources {
		s.revoked = false
	}
	for len(w.topic.groups) > 0 {
		w.topic.Drop(w.topic.groups[0].name)
		w.check()
	}
	require.Zero(w.t, w.topic.window.Held())
	left := 0
	for _, s := range w.sources {
		left += len(s.lengths)
		for _, r := range s.runs {
			require.Nil(w.t, r.buf, "the memory of all messages was given back")
		}
	}
	require.Equal(w.t, w.dropped, left, "each message was reported, or dropped with the topic")
	w.topic.Close()
	require.Empty(w.t, w.topic.beside.deliveries)
	require.Empty(w.t, w.topic.union.deliveries)
}

// Whatever users of a topic do, in whatever order, the books of the topic and its groups agree with what they have done, and in the
// end nothing is left.
func TestTopic_BooksAgree(t *testing.T) {
	for seed := range uint64(100) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			w := newWalk(t, seed)
			for step := range 150 {
				w.step()
				if w.check(); t.Failed() {
					t.Fatalf("seed %d, step %d", seed, step)
				}
			}
			w.finish()
		})
	}
}
