package session

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/flow"
	"github.com/buffstreams/watermill-buffstreams/internal/wire"
)

// backlog is the store of a fetched stream: it has all messages below tail that are not settled.
type backlog struct {
	p       *pair
	o       *Outbound
	tail    uint64
	settled map[uint64]bool
	refused map[uint64]wire.Code
	broken  *PeerError
}

func newBacklog(p *pair, base uint64) *backlog {
	return &backlog{
		p: p, o: p.client.StartFetched(Identity{Publisher: [16]byte{9}, Epoch: 1}, 7, "a", base, base),
		tail: base, settled: map[uint64]bool{}, refused: map[uint64]wire.Code{},
	}
}

// add makes n further messages known.
func (s *backlog) add(n uint64) {
	s.tail += n
	s.p.client.Announce(s.o, s.tail)
}

// feed feeds the stream until it needs no more.
func (s *backlog) feed() {
	for {
		from, generation, ok := s.o.NextFetch()
		for ; s.settled[from]; from++ {
		}
		if !ok || from >= s.tail {
			return
		}
		end := from
		var messages [][]byte
		for ; end < s.tail && !s.settled[end] && end < from+5; end++ {
			messages = append(messages, content("a", end, 5000))
		}
		s.p.client.Feed(s.o, generation, from, messages)
	}
}

// note writes the news down.
func (s *backlog) note() {
	for _, o := range s.p.client.WithEvents() {
		for _, e := range o.Events() {
			switch {
			case e.First == 0:
				s.broken = e.Err
			case e.Err != nil:
				s.refused[e.First] = e.Err.code
				s.p.client.ConfirmRefused(o, e.First)
			}
			for seq := e.First; seq > 0 && seq <= e.Last; seq++ {
				s.settled[seq] = true
			}
		}
	}
}

// flow moves frames and messages until nothing is left to move.
func (s *backlog) flow() {
	for range 50 {
		s.feed()
		s.p.flow()
		s.note()
	}
}

func TestFetched_FetchesAgainWhatTheReceiverLacks(t *testing.T) {
	for name, restart := range map[string]func(*remote){
		"lived on":  func(*remote) {},
		"restarted": func(r *remote) { r.restart(false) },
		"durable":   func(r *remote) { r.restart(true) },
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t, roomy, muchRoom)
			s, in := newBacklog(p, 1), p.remote.stream("a")
			s.add(100)
			p.connect()
			s.flow()
			require.Equal(t, upTo(100), in.order)
			require.Zero(t, memory(s.o), "what was sent is not kept")
			require.Zero(t, p.client.Unreceived())
			p.remote.settle(in, 1, 2, 3, 50, 99)
			s.flow()
			require.Len(t, s.settled, 5)
			s.add(10)
			p.cut()
			p.remote.settle(in, 60) // told at the next connection
			restart(p.remote)
			p.connect()
			s.flow()
			require.Equal(t, 110, int(in.next-1))
			p.remote.reject(in, 70)
			p.remote.settle(in, upTo(110)...)
			s.flow()
			require.Len(t, s.settled, 110)
			require.Equal(t, map[uint64]wire.Code{70: wire.Code_CODE_UNDECODABLE}, s.refused)
			require.Zero(t, s.o.unsettled())
			for seq := uint64(1); seq <= 110; seq++ {
				require.True(t, in.finished[seq] || in.refused[seq])
			}
		})
	}
}

func TestFetched_TakesNothingOfAnOlderGeneration(t *testing.T) {
	p := newPair(t, roomy, muchRoom)
	s, in := newBacklog(p, 5), p.remote.stream("a")
	s.add(10)
	_, _, ok := s.o.NextFetch()
	require.False(t, ok, "not before the receiver has said where it stands")
	p.client.Feed(s.o, 0, 5, [][]byte{content("a", 5, 0)})
	p.connect()
	p.flow()
	from, old, ok := s.o.NextFetch()
	require.True(t, ok)
	require.Equal(t, uint64(5), from)
	p.cut()
	p.client.Feed(s.o, old, 5, [][]byte{[]byte("late")})
	p.connect()
	p.flow()
	p.client.Feed(s.o, old, 5, [][]byte{[]byte("late")})
	s.flow()
	require.Equal(t, []uint64{5, 6, 7, 8, 9, 10, 11, 12, 13, 14}, in.order)
}

// What a fetched stream holds has a bound of its own: it takes nothing from the budget, and must give nothing to it.
func TestFetched_LeavesTheBudgetAlone(t *testing.T) {
	for name, end := range map[string]func(*pair, *backlog){
		"ended":   func(p *pair, s *backlog) { p.client.EndFetched(s.o) },
		"aborted": func(p *pair, _ *backlog) { p.client.Abort(errLate) },
		"refused": func(p *pair, _ *backlog) {
			gone := &wire.Reject{Handle: 1, Code: wire.Code_CODE_TOPIC_GONE}
			require.NoError(t, p.say(&wire.Frame{Body: &wire.Frame_Reject{Reject: gone}}))
		},
		"cut": func(p *pair, s *backlog) { p.cut() },
	} {
		t.Run(name, func(t *testing.T) {
			budget := flow.NewBudget(1000)
			p := newPair(t, Window{Messages: 100, Bytes: 1000, Budget: budget}, smallRoom)
			s := newBacklog(p, 1)
			s.add(100)
			p.connect()
			s.flow()
			require.NotZero(t, memory(s.o), "it waits for credit")
			require.LessOrEqual(t, s.o.bytes, fetchWindow+5*EncodedSize(5000))
			end(p, s)
			require.Equal(t, 1000, budget.Free())
		})
	}
}
