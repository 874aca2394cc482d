package session

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/flow"
	"github.com/buffstreams/watermill-buffstreams/internal/wire"
)

// script is a fuzzer's input as a source of decisions: each takes a byte, and what comes after the last is noise that
// is always the same.
type script struct {
	data []byte
	rest *rand.PCG
}

func newScript(data []byte) *script { return &script{data: data, rest: rand.NewPCG(1, 2)} }

// Uint64 implements rand.Source. The byte stands in the highest bits and in the lowest, so that it decides whichever of
// them are looked at; the bits between are never all 0, which would have the generator draw again.
func (s *script) Uint64() uint64 {
	if len(s.data) == 0 {
		return s.rest.Uint64()
	}
	b := uint64(s.data[0])
	s.data = s.data[1:]
	return b<<56 | 0x123456<<32 | b<<24 | 0x3456<<8 | b
}

// take returns the next n bytes, or what is left.
func (s *script) take(n int) []byte {
	n = min(n, len(s.data))
	out := s.data[:n]
	s.data = s.data[n:]
	return out
}

func (s *script) byte() int {
	if b := s.take(1); len(b) == 1 {
		return int(b[0])
	}
	return 0
}

// number is a small number or one near the ends of what 64 bits hold: these are where arithmetic goes wrong.
func (s *script) number() uint64 {
	switch b := s.byte(); {
	case b < 200:
		return uint64(b % 32)
	case b < 230:
		return ^uint64(0) - uint64(b%8)
	default:
		return binary.LittleEndian.Uint64(append(append([]byte(nil), s.take(8)...), make([]byte, 8)...))
	}
}

const maxScript = 600 // longer inputs only make a run slower

// FuzzSession has a client and a remote do what the bytes say, over a wire that breaks: the simulation of
// simulation_test.go with the fuzzer in the place of chance. In the end the wire heals and the account must be right.
func FuzzSession(f *testing.F) {
	for seed := range uint64(8) {
		rng := rand.New(rand.NewPCG(seed, 9))
		data := make([]byte, 40+rng.IntN(400))
		for i := range data {
			data[i] = byte(rng.Uint32())
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > maxScript {
			t.Skip("long")
		}
		in := newScript(data)
		rng := rand.New(in)
		memory := 1000 + rng.IntN(100_000)
		budget := flow.NewBudget(memory)
		room := Amount{Messages: 1 + rng.IntN(60), Bytes: 300 + rng.IntN(8000)}
		window := Window{Messages: 1 + rng.IntN(80), Bytes: 100 + rng.IntN(10_000), Budget: budget}
		s := &simulation{
			pair: newPair(t, window, room), rng: rng, scale: 1, room: room, budget: budget, memory: memory,
			total: map[string]uint64{},
		}
		s.limit = 1 + rng.IntN(5000)
		for i := range 1 + rng.IntN(3) {
			s.topics = append(s.topics, fmt.Sprintf("t%d", i))
		}
		for step := 0; len(in.data) > 0; step++ {
			err := s.step()
			if errors.Is(err, ErrSilent) { // time went by and nothing else
				s.cut()
				s.up, err = false, nil
			}
			require.NoError(t, err, "step %d", step)
			require.NoError(t, s.check(), "after step %d", step)
		}
		err := s.finish()
		if errors.Is(err, ErrSilent) {
			s.cut()
			s.up = false
			err = s.finish()
		}
		require.NoError(t, err)
	})
}

// FuzzFetchedSession is FuzzSession for a fetched stream: whatever happens, the remote gets each of them, in order, and
// the store learns what became of it.
func FuzzFetchedSession(f *testing.F) {
	f.Add([]byte{0, 10, 6, 1, 2, 3, 4, 5, 0, 3, 6, 2, 1, 7, 6, 3, 2, 1, 4})
	f.Add([]byte{9, 0, 40, 6, 2, 1, 3, 3, 1, 2, 3, 5, 6, 3, 2, 1, 3, 2, 1})
	up := []byte{6, 3, 1, 3, 2, 3, 3, 1, 3, 2, 3} // as far as Opened
	again := append([]byte{40, 100, 0, 0, 10}, up...)
	f.Add(append(append(append(again, 3, 7, 1), up...), 9, 3, 1, 3, 2, 3))
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > maxScript {
			t.Skip("long")
		}
		in := newScript(data)
		p := newPair(t, roomy, Amount{Messages: 1 + in.byte()%50, Bytes: 6000 + 500*in.byte()})
		base := 1 + uint64(in.byte()%4)
		s, remote := newBacklog(p, base), p.remote.stream("a")
		up, was := false, uint64(0) // was is the generation of a fetch, 0 for none
		for len(in.data) > 0 {
			switch in.byte() % 10 {
			case 0:
				if s.tail < 300 { // the room may hold but one
					s.add(uint64(in.byte() % 64))
				}
			case 1:
				require.NoError(t, p.deliverUp(1+in.byte()%4))
			case 2:
				require.NoError(t, p.deliverDown(1+in.byte()%4))
			case 3:
				if was == 0 {
					_, was, _ = s.o.NextFetch()
				}
				s.feed()
				p.output()
			case 4:
				if n := len(remote.order); n > 0 {
					p.remote.settle(remote, remote.order[in.byte()%n:]...)
				}
				p.remote.serve()
			case 5:
				if n := len(remote.order); n > 0 {
					p.remote.reject(remote, remote.order[in.byte()%n])
				}
			case 6:
				if !up {
					p.connect()
				}
				up = true
			case 7:
				p.cut()
				if up = false; in.byte()%2 == 0 {
					p.remote.restart(in.byte()%2 == 0)
				}
			case 8:
				p.remote.ack()
			case 9: // what was fetched for an earlier connection
				from, now, _ := s.o.NextFetch()
				if now != was {
					p.client.Feed(s.o, was, from, [][]byte{[]byte("late")})
				}
				was = 0
			}
			s.note()
			require.Nil(t, s.broken)
			require.LessOrEqual(t, s.o.bytes, fetchWindow+5*EncodedSize(5000))
		}
		if !up {
			p.connect()
		}
		s.settleAll(t, remote)
		for seq := base; seq < s.tail; seq++ {
			_, refused := s.refused[seq]
			require.True(t, s.settled[seq], seq)
			require.True(t, remote.finished[seq] || remote.refused[seq], seq)
			require.True(t, !refused || remote.refused[seq], seq)
			require.NotZero(t, remote.ever[seq], seq)
		}
	})
}

// settleAll lets the remote settle what it gets, second by second, until there is nothing left.
func (s *backlog) settleAll(t *testing.T, remote *inflow) {
	for round := 0; s.o.unsettled() > 0; round++ {
		require.Less(t, round, 1000, "%d messages are never settled", s.o.unsettled())
		s.p.now = s.p.now.Add(time.Second)
		require.NoError(t, s.p.client.Tick(s.p.now, late))
		s.feed()
		s.p.flow()
		s.note()
		s.p.remote.settle(remote, remote.order...)
		s.p.remote.serve()
		s.p.flow()
		s.note()
	}
}

// frameOf makes a frame that a listener sends of the next bytes: any type, any numbers.
func (s *script) frameOf() *wire.Frame {
	handle := s.number()
	switch s.byte() % 12 {
	case 0, 1:
		return &wire.Frame{Body: &wire.Frame_Opened{Opened: &wire.Opened{
			Handle: handle, Code: wire.Code(s.byte() % 14 * (s.byte() % 2)), Next: s.number(), Settled: s.numbers(),
		}}}
	case 2, 3, 4, 5:
		return &wire.Frame{Body: &wire.Frame_Ack{Ack: &wire.Ack{
			Handle: handle, Next: s.number(), Settled: s.numbers(), CreditMessages: s.number(), CreditBytes: s.number(),
		}}}
	case 6:
		return &wire.Frame{Body: &wire.Frame_Reject{Reject: &wire.Reject{
			Handle: handle, Sequence: s.number(), Code: wire.Code(s.byte()), Reason: fmt.Sprintf("%q", s.take(3)),
		}}}
	case 7:
		return &wire.Frame{Body: &wire.Frame_Welcome{Welcome: &wire.Welcome{Version: uint32(s.byte() % 3), MaxFrame: s.number() * 65600}}}
	case 8:
		return &wire.Frame{Body: &wire.Frame_Goaway{Goaway: &wire.Goaway{}}}
	case 9:
		return &wire.Frame{Body: &wire.Frame_Ping{Ping: &wire.Ping{Id: s.number()}}}
	case 10:
		return &wire.Frame{Body: &wire.Frame_Pong{Pong: &wire.Pong{Id: s.number()}}}
	}
	return everyControl()[s.byte()%len(everyControl())]
}

func (s *script) numbers() (out []uint64) {
	for range s.byte() % 6 {
		out = append(out, s.number())
	}
	return out
}

// FuzzClient has a listener say anything to a client that has messages to send. The client keeps its window and its
// credit, never settles what it has not sent, and an error leaves it fit for the next connection.
func FuzzClient(f *testing.F) {
	// Three messages, a welcome and an Opened of the first stream; then what is wrong.
	begin := []byte{0, 0, 3, 2, 1, 7, 1, 1, 2, 1, 0, 0, 0, 1, 0}
	for _, then := range [][]byte{
		{2, 1, 2, 201, 0, 0, 0}, // an Ack up to 2^64-2
		{2, 1, 2, 0, 2, 1, 201, 0, 0},
		{2, 1, 2, 0, 0, 5, 201, 2, 1, 2, 0, 0, 4, 201}, // credit that falls
		{2, 1, 2, 0, 0, 205, 205, 2, 1, 2, 2, 2, 1, 1, 0, 0, 2, 1, 6, 2, 3},
	} {
		f.Add(append(begin[:len(begin):len(begin)], then...))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > maxScript {
			t.Skip("long")
		}
		in := newScript(data)
		budget := flow.NewBudget(5000)
		p := newPair(t, Window{Messages: 20, Bytes: 3000, Budget: budget}, muchRoom)
		p.connect()
		topics := []string{"a", "b"}
		for len(in.data) > 0 {
			op := in.byte() % 8
			if op == 0 {
				p.enqueue(topics[in.byte()%2], many(in.byte()%8)...)
			}
			if op == 1 {
				p.now = p.now.Add(time.Duration(in.byte()) * 10 * time.Millisecond)
				if p.client.Tick(p.now, late) != nil {
					p.cut()
					p.connect()
				}
			}
			if op > 1 {
				if err := p.say(in.frameOf()); err != nil {
					p.cut()
					p.connect()
					p.sayWelcome()
				}
			}
			p.output()
			p.up = nil
			p.client.Refused()
			checkClient(t, p, topics)
		}
		p.client.Abort(errLate)
		require.Equal(t, 5000, budget.Free(), "the budget has everything back")
	})
}

func (p *pair) sayWelcome() {
	require.NoError(p.t, p.say(&wire.Frame{Body: &wire.Frame_Welcome{Welcome: p.remote.welcome}}))
}

func checkClient(t *testing.T, p *pair, topics []string) {
	t.Helper()
	for _, topic := range topics {
		o := p.client.Find(topic)
		if o != nil {
			require.LessOrEqual(t, o.pending, 20)
		}
	}
	require.NoError(t, checkBooks(p.client))
	require.Less(t, len(p.client.control), 1<<20)
}
