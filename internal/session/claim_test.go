package session

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/wire"
)

// claims are answers to Open of a receiver that says it has the message with sequence from, which was never sent.
func claims(from uint64) map[string]*wire.Opened {
	return map[string]*wire.Opened{
		"next":                         {Next: from + 1},
		"far beyond":                   {Next: ^uint64(0)},
		"settled":                      {Next: 1, Settled: []uint64{from, from}},
		"settled, with next":           {Next: from, Settled: []uint64{1, from}},
		"settled, behind what is true": {Next: from, Settled: []uint64{1, 1, from, from + 7}},
	}
}

// A receiver that claims messages which are only queued here would have them dropped. The stream is refused with all
// of its messages, in whatever way it is said, and no other stream notices.
func TestClient_ClaimOfWhatWasNeverSentRefusesItsStreamAlone(t *testing.T) {
	for _, sent := range []int{0, 3} {
		for name, f := range claims(uint64(sent) + 1) {
			t.Run(name, func(t *testing.T) {
				p := newPair(t, roomy, muchRoom)
				p.enqueue("a", many(sent)...)
				p.enqueue("b", 1)
				p.connect()
				p.flow()
				p.cut()
				p.enqueue("a", many(5)...)
				p.enqueue("b", 1)
				p.reopen()
				old, w := p.client.Stream("a"), p.wait("a", Handled, 1, uint64(sent)+5)
				number := old.stream

				claimed := &wire.Opened{Handle: old.handle, Next: f.Next, Settled: f.Settled}
				require.NoError(t, p.say(&wire.Frame{Body: &wire.Frame_Opened{Opened: claimed}}))
				require.True(t, done(w))
				require.ErrorIs(t, w.Err, ErrNeverSent)
				require.ErrorIs(t, old.Err(), ErrNeverSent)
				refused := p.client.Refused()
				require.Len(t, refused, sent+5, "each is told of, with its bytes")
				for i, r := range refused {
					require.Equal(t, string(content("a", uint64(i+1), 0)), string(r.Message))
					require.ErrorIs(t, r.Err, ErrNeverSent)
				}

				// The receiver has the stream open and grants credit: it gets that back.
				require.NoError(t, p.sayAck(AckFrame{Handle: old.handle, Messages: 9, Bytes: 900}))
				want := &wire.Want{Handle: old.handle, SeenMessages: 9}
				var got []any
				p.output()
				for _, payload := range p.up {
					frame, err := Decode(payload[:len(payload)-crcSize])
					require.NoError(t, err)
					if f, ok := frame.(*wire.Want); ok {
						got = append(got, f.Handle == want.Handle, f.SeenMessages == want.SeenMessages, f.Messages)
					}
				}
				require.Equal(t, []any{true, true, uint64(0)}, got)

				// The other stream goes on, on this connection, and the topic with another stream.
				p.up = p.up[:0]
				p.remote.streams["a"], p.remote.handles = nil, map[uint64]*inflow{}
				delete(p.remote.streams, "a")
				p.remote.topics = []string{"b"}
				p.remote.open(&wire.Open{Handle: p.client.Stream("b").handle, Topic: "b", Base: 1, WantMessages: 2, WantBytes: 1000, LeastBytes: 1})
				require.NotEqual(t, number, p.client.Stream("a").stream)
				p.enqueue("a", 1)
				p.flow()
				require.Len(t, p.remote.stream("b").held, 2)
				require.Len(t, p.remote.stream("a").held, 1)
				require.Equal(t, 3, p.client.Pending())
			})
		}
	}
}

// What the sender closed, and what it sent last, is no claim: the receiver may stand right behind either.
func TestClient_NoClaimWhereTheReceiverMayStand(t *testing.T) {
	p := newPair(t, roomy, muchRoom)
	p.remote.welcome.MaxMessage = 1000
	p.enqueue("a", 10, 10, 2000) // the last is closed without having been sent
	p.connect()
	p.flow()
	s := p.remote.stream("a")
	require.Equal(t, uint64(3), s.next)
	p.remote.settle(s, 2)
	p.flow()
	p.cut()
	p.remote.restart(false)
	p.connect()
	p.flow()
	require.NoError(t, p.client.Stream("a").Err())
	p.remote.settle(s, 1)
	p.flow()
	require.Zero(t, p.client.Pending())
	p.enqueue("a", 10)
	p.reopen()
	require.NoError(t, p.say(&wire.Frame{Body: &wire.Frame_Opened{Opened: &wire.Opened{Handle: 1, Next: 4}}}), "4 is the base")
	require.NoError(t, p.client.Stream("a").Err())
}

func TestFetched_ClaimOfWhatWasNeverSent(t *testing.T) {
	for name, f := range claims(15) {
		t.Run(name, func(t *testing.T) {
			p := newPair(t, roomy, muchRoom)
			p.connect()
			p.flow()
			s := &backlog{p: p, tail: 1, settled: map[uint64]bool{}, refused: map[uint64]wire.Code{}}
			s.o = p.client.StartFetched(Identity{Publisher: [16]byte{9}, Epoch: 1}, 7, "a", 1, 15)
			s.add(20) // 15 to 20 came in this life and wait for the peer
			p.output()
			f.Handle = s.o.handle
			require.NoError(t, p.say(&wire.Frame{Body: &wire.Frame_Opened{Opened: f}}))
			s.note()
			require.ErrorIs(t, s.broken, ErrNeverSent)
			require.Empty(t, s.settled, "nothing may leave the store")
			require.Zero(t, p.client.Pending(), "nobody dials for it")
			_, _, wanted := s.o.NextFetch()
			require.False(t, wanted)
			require.ErrorIs(t, s.o.Err(), ErrNeverSent)
		})
	}
	p := newPair(t, roomy, muchRoom)
	p.connect()
	p.flow()
	o := p.client.StartFetched(Identity{Publisher: [16]byte{9}, Epoch: 1}, 7, "a", 1, 15)
	p.client.Announce(o, 21)
	p.output()
	opened := &wire.Opened{Handle: o.handle, Next: 15, Settled: []uint64{1, 14}}
	require.NoError(t, p.say(&wire.Frame{Body: &wire.Frame_Opened{Opened: opened}}), "an earlier process may have sent these")
	require.NoError(t, o.Err())
	require.EqualValues(t, 15, o.neverSent())
}

// A stream whose owner took it off while there was no connection is no reason to dial.
func TestFetched_EndedWhileDisconnectedIsForgotten(t *testing.T) {
	p := newPair(t, roomy, muchRoom)
	s := newBacklog(p, 1)
	s.add(5)
	require.Equal(t, 5, p.client.Pending())
	p.client.EndFetched(s.o)
	require.Zero(t, p.client.Pending())
	require.Empty(t, p.client.handles)
}

// The receiver must not forget a rejection before the owner of the message has dealt with it.
func TestFetched_RejectionIsConfirmedByTheOwner(t *testing.T) {
	p := newPair(t, roomy, muchRoom)
	p.connect()
	s := newBacklog(p, 1)
	s.add(3)
	for range 5 {
		s.feed()
		p.flow()
	}
	at := p.remote.stream("a")
	p.remote.reject(at, 2)
	p.flow()
	require.Len(t, p.client.WithEvents(), 1)
	events := s.o.Events()
	require.Len(t, events, 1)
	require.EqualValues(t, 2, events[0].First)
	require.Equal(t, 1, at.in.Rejected(), "it is not confirmed")

	p.cut()
	p.connect()
	p.flow()
	require.Equal(t, 1, at.in.Rejected())
	require.Empty(t, s.o.Events(), "it is told of once")
	p.client.ConfirmRefused(s.o, 2)
	p.client.ConfirmRefused(s.o, 2)
	p.flow()
	require.Zero(t, at.in.Rejected())

	p.remote.reject(at, 3)
	p.flow()
	p.cut()
	p.client.ConfirmRefused(s.o, 3) // without a connection: the receiver is told when it repeats the rejection
	p.connect()
	p.flow()
	require.Zero(t, at.in.Rejected())
	require.Len(t, frames[*wire.RejectSeen](p), 2)
}
