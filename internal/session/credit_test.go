package session

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/wire"
)

// A Want must not overtake the messages that were sent with the credit it gives back.
func TestCredit_WantFollowsTheMessagesThatUsedIt(t *testing.T) {
	p := newPair(t, roomy, smallRoom)
	p.remote.manual = true
	p.connect()
	p.enqueue("a", many(10)...)
	p.flow()
	s := p.remote.stream("a")
	p.remote.serve()
	p.flow()
	require.Len(t, s.held, 4, "the window has room for four; the rest waits")
	for next := uint64(1); next <= 10; next++ {
		p.remote.settle(s, next)
		p.remote.serve()
		p.flow()
	}
	require.Empty(t, s.held)
	require.Zero(t, p.client.Pending())
}

func TestCredit_BoundsWhatIsSentInMessagesAndInBytes(t *testing.T) {
	const size = 100
	each := EncodedSize(size)
	for _, c := range []struct {
		name  string
		grant Amount
		sent  int
	}{
		{"nothing without bytes", Amount{Messages: 5, Bytes: each - 1}, 0},
		{"messages bind", Amount{Messages: 3, Bytes: 100 * each}, 3},
		{"bytes bind", Amount{Messages: 9, Bytes: 4*each + each - 1}, 4},
		{"both to the last", Amount{Messages: 4, Bytes: 4 * each}, 4},
		{"more than there is", Amount{Messages: 99, Bytes: 99 * each}, 8},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPair(t, roomy, muchRoom)
			p.remote.manual = true
			p.connect()
			p.enqueue("a", size, size, size, size, size, size, size, size)
			p.flow()
			require.Empty(t, p.published, "nothing is sent before credit was given")
			s := p.remote.stream("a")
			p.remote.grant(s, c.grant)
			p.flow()
			require.Len(t, s.held, c.sent)
			wants := frames[*wire.Want](p)
			if c.sent == 8 {
				require.Empty(t, wants)
				return
			}
			require.Len(t, wants, 1, "what cannot be sent is asked for once")
			require.Equal(t, []uint64{uint64(8 - c.sent), uint64((8 - c.sent) * each), uint64(each), uint64(c.grant.Messages)},
				[]uint64{wants[0].Messages, wants[0].Bytes, wants[0].LeastBytes, wants[0].SeenMessages})
			p.remote.serve()
			p.flow()
			require.Len(t, s.held, 8)
		})
	}
}

func TestCredit_OneStreamWithoutItDelaysNoOther(t *testing.T) {
	p := newPair(t, roomy, muchRoom)
	p.remote.manual = true
	p.connect()
	p.enqueue("stuck", many(50)...)
	p.enqueue("free", many(50)...)
	p.flow()
	p.remote.grant(p.remote.stream("free"), Amount{Messages: 50, Bytes: 5000})
	p.flow()
	require.Empty(t, p.remote.stream("stuck").held)
	require.Len(t, p.remote.stream("free").held, 50)
}

func TestClient_StreamsTakeTurns(t *testing.T) {
	p := newPair(t, roomy, muchRoom)
	p.limit = 1 // one segment each time
	p.connect()
	for range 4 * chunkMessages {
		p.enqueue("a", 1)
		p.enqueue("b", 1)
	}
	p.flow()
	handles := map[uint64]int{}
	for i, s := range p.published {
		handles[s.Handle]++
		require.LessOrEqual(t, max(handles[1], handles[2])-min(handles[1], handles[2]), 1, "after segment %d", i)
	}
	require.Len(t, handles, 2)
	require.Greater(t, len(p.published), 6)
}

// explore runs f with every sequence of choices that it can make.
func explore(f func(choose func(n int) int)) (runs int) {
	var path, width []int
	for {
		at := 0
		f(func(n int) int {
			if at == len(path) {
				path, width = append(path, 0), append(width, n)
			}
			at++
			return path[at-1]
		})
		runs++
		for len(path) > 0 && path[len(path)-1] == width[len(path)-1]-1 {
			path, width = path[:len(path)-1], width[:len(path)-1]
		}
		if len(path) == 0 {
			return runs
		}
		path[len(path)-1]++
	}
}

// TestCredit_GrantsMayCrossWants lets grants, Wants for more, Wants that give back and messages cross on the wire in
// every order.
func TestCredit_GrantsMayCrossWants(t *testing.T) {
	room := Amount{Messages: 20, Bytes: 20 * EncodedSize(50)}
	few := Amount{Messages: 2, Bytes: 2 * EncodedSize(50)}
	runs := explore(func(choose func(n int) int) {
		p := newPair(t, roomy, room)
		p.remote.manual = true
		p.connect()
		p.enqueue("a", 50)
		p.flow()
		s := p.remote.stream("a")
		p.remote.grant(s, few)
		p.remote.ack()
		grants, ticks := 2, 2
		for range 7 {
			var can []func()
			if p.pending() {
				can = append(can, func() { p.output() })
			}
			if len(p.up) > 0 {
				can = append(can, func() { require.NoError(t, p.deliverUp(1)); p.remote.ack() })
			}
			if len(p.down) > 0 || len(p.remote.out) > 0 {
				can = append(can, func() { require.NoError(t, p.deliverDown(1)) })
			}
			if grants > 0 {
				can = append(can, func() { grants--; p.remote.grant(s, few); p.remote.ack() })
			}
			if ticks > 0 {
				can = append(can, func() {
					ticks--
					p.now = p.now.Add(time.Second)
					require.NoError(t, p.client.Tick(p.now, late))
					p.enqueue("a", 50)
				})
			}
			can[choose(len(can))]()
		}
		p.remote.manual = false
		for p.client.Pending() > 0 {
			p.remote.serve()
			p.remote.ack()
			p.flow()
			require.NotEmpty(t, s.held, "something moves")
			p.remote.settle(s, s.order...)
			p.remote.ack()
			p.flow()
		}
		requireAllReturned(t, p, room)
	})
	require.Greater(t, runs, 1000)
}

// requireAllReturned lets time pass until idle streams have given their credit back.
func requireAllReturned(t *testing.T, p *pair, room Amount) {
	t.Helper()
	for range 3 {
		p.now = p.now.Add(time.Second)
		require.NoError(t, p.client.Tick(p.now, late))
		p.flow()
	}
	require.Equal(t, room, p.remote.room, "the window has everything back")
}

func TestCredit_IdleStreamsReturnIt(t *testing.T) {
	room := Amount{Messages: 10, Bytes: 1000}
	for name, grant := range map[string]Amount{
		"both":     {Messages: 5, Bytes: 500},
		"messages": {Messages: 5, Bytes: EncodedSize(6)},
		"bytes":    {Messages: 1, Bytes: 900}, // kept for ever it would starve the others
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t, roomy, room)
			p.remote.manual = true
			p.connect()
			p.enqueue("a", 6)
			p.flow()
			s := p.remote.stream("a")
			p.remote.leave(s)
			p.remote.grant(s, grant)
			p.flow()
			require.Len(t, s.held, 1)
			p.remote.settle(s, 1)
			p.flow()
			require.NotEqual(t, room, p.remote.room)
			requireAllReturned(t, p, room)
			require.Len(t, frames[*wire.Want](p), 1, "once is enough")

			p.enqueue("a", 6) // and it gets credit again when it needs some
			p.flow()
			p.remote.serve()
			p.flow()
			require.Len(t, s.held, 1)
		})
	}
}

func TestCredit_BusyStreamsKeepIt(t *testing.T) {
	p := newPair(t, roomy, Amount{Messages: 100, Bytes: 1 << 20})
	p.remote.manual = true
	p.connect()
	p.enqueue("a", 6)
	p.flow()
	s := p.remote.stream("a")
	p.remote.leave(s)
	p.remote.grant(s, Amount{Messages: 50, Bytes: 5000})
	p.flow()
	for range 20 {
		p.now = p.now.Add(300 * time.Millisecond)
		p.enqueue("a", 6)
		p.flow()
		require.NoError(t, p.client.Tick(p.now, late))
		p.flow()
	}
	require.Empty(t, frames[*wire.Want](p))
}

func TestClient_RefusesAndSkipsAMessageOverThePeersLimit(t *testing.T) {
	p := newPair(t, roomy, muchRoom)
	p.remote.welcome.MaxFrame = MinFrame
	p.connect()
	p.enqueue("a", 10, 100_000, 10, 200_000)
	received, last := p.wait("a", Received, 1, 3), p.wait("a", Received, 4, 4)
	handled := p.wait("a", Handled, 2, 2)
	s := p.remote.stream("a")
	s.refused[2], s.refused[4] = true, true // by the client itself: the remote must accept the gap
	p.flow()
	require.Equal(t, []uint64{1, 3}, s.order)
	require.Len(t, p.refused, 2)
	for i, seq := range []uint64{2, 4} {
		require.Equal(t, seq, p.refused[i].Sequence)
		require.Equal(t, wire.Code_CODE_LIMIT, p.refused[i].Err.code)
	}
	require.Equal(t, string(content("a", 2, 100_000)), string(p.refused[0].Message))
	require.True(t, done(received))
	require.ErrorIs(t, received.Err, error(p.refused[0].Err), "the second of its messages will not be received")
	require.True(t, done(handled))
	require.ErrorIs(t, handled.Err, error(p.refused[0].Err))
	require.True(t, done(last), "no ack will ever come for it")
	require.ErrorIs(t, last.Err, error(p.refused[1].Err))
	require.Zero(t, p.client.Unreceived())
	p.remote.settle(s, 1, 3)
	p.flow()
	require.Zero(t, p.client.Pending())
	p.enqueue("a", 10)
	p.flow()
	require.Equal(t, []uint64{1, 3, 5}, s.order)
}
