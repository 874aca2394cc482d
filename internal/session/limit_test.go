package session

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/wire"
)

// What the receiver announces bounds each message, wherever it stands in a chunk, in a batch or in the credit. Only
// those over the limit are refused, at once, and each once.
func TestClient_MessagesOverThePeersLimitAreRefusedAlone(t *testing.T) {
	for name, sizes := range map[string][]int{
		"alone":             {1001},
		"first":             {1001, 10, 1000},
		"last":              {10, 1000, 1001},
		"between":           {10, 1001, 10, 5000, 1000},
		"one after another": {10, 1001, 1001, 1001, 10},
		"large":             {10, 70 << 10, 10},
		"all":               {1001, 20 << 10, 70 << 10},
		"none":              {1000, 999, 10},
		"within a chunk":    append(slices.Repeat([]int{100}, 60), 1001, 10, 1001),
	} {
		for _, reconnect := range []bool{false, true} {
			for _, credit := range []Amount{muchRoom, smallRoom} {
				t.Run(fmt.Sprintf("%s/%v/%d", name, reconnect, credit.Messages), func(t *testing.T) {
					p := newPair(t, roomy, credit)
					p.remote.welcome.MaxFrame, p.remote.welcome.MaxMessage = MinFrame, 1000
					p.connect()
					p.flow()
					p.enqueue("a", sizes...)
					w := p.wait("a", Handled, 1, uint64(len(sizes)))
					var over []uint64
					for i, size := range sizes {
						if size > 1000 {
							over = append(over, uint64(i+1))
							p.remote.stream("a").refused[uint64(i+1)] = true // these may be passed over
						}
					}
					if reconnect {
						p.reopen()
						p.cut()
						p.connect()
					}
					for range 20 { // a small window opens as messages are settled
						p.flow()
						p.remote.settle(p.remote.stream("a"), p.remote.stream("a").order...)
						p.remote.serve()
					}
					p.flow()
					var refused []uint64
					for _, r := range p.refused {
						refused = append(refused, r.Sequence)
						require.ErrorIs(t, r.Err, ErrLimit)
						require.Equal(t, string(content("a", r.Sequence, sizes[r.Sequence-1])), string(r.Message))
					}
					require.Equal(t, over, refused)
					require.Len(t, p.remote.stream("a").order, len(sizes)-len(over))
					require.Zero(t, p.client.Pending())
					require.True(t, done(w))
					if len(over) > 0 {
						require.ErrorIs(t, w.Err, ErrLimit)
					} else {
						require.NoError(t, w.Err)
					}
				})
			}
		}
	}
}

// The frame's limit holds too, where a receiver announces messages that fit into none of its frames.
func TestClient_ThePeersFramesBoundMessagesToo(t *testing.T) {
	p := newPair(t, roomy, muchRoom)
	p.remote.welcome.MaxFrame, p.remote.welcome.MaxMessage = MinFrame, 1<<20
	p.connect()
	p.enqueue("a", 64<<10, MinFrame, 10)
	p.remote.stream("a").refused[2] = true
	p.flow()
	require.Len(t, p.refused, 1)
	require.EqualValues(t, 2, p.refused[0].Sequence)
	require.Equal(t, []uint64{1, 3}, p.remote.stream("a").order)
}

// An open that was refused for a while is tried again with growing pauses, never because of something else, and its
// calls are told why they wait.
func TestClient_OpenRefusedForAWhileIsTriedAgainWithPauses(t *testing.T) {
	p := newPair(t, roomy, muchRoom)
	p.remote.refuse["a"] = wire.Code_CODE_LIMIT
	opens := func() (n int) {
		for _, f := range frames[*wire.Open](p) {
			if f.Topic == "a" {
				n++
			}
		}
		return n
	}
	p.connect()
	p.enqueue("a", 1)
	p.flow()
	require.Equal(t, 1, opens())
	begin := p.now
	var after []time.Duration
	for n := 1; p.now.Before(begin.Add(2 * time.Minute)); {
		p.now = p.now.Add(100 * time.Millisecond)
		p.enqueue("a", 1)
		require.NoError(t, p.client.Tick(p.now, late))
		p.flow()
		if opens() > n {
			n = opens()
			after = append(after, p.now.Sub(begin))
		}
	}
	require.Equal(t, []time.Duration{
		time.Second, 3 * time.Second, 7 * time.Second, 15 * time.Second, 31 * time.Second, 61 * time.Second, 91 * time.Second,
	}, after[:7])

	w := p.wait("a", Received, 1, 1)
	w.Deadline = p.now
	p.now = p.now.Add(100 * time.Millisecond)
	require.NoError(t, p.client.Tick(p.now, p.client.Explain))
	require.True(t, done(w))
	require.ErrorIs(t, w.Err, ErrLimit, "it says why")

	delete(p.remote.refuse, "a")
	for range 4 {
		p.now = p.now.Add(9 * time.Second)
		require.NoError(t, p.client.Tick(p.now, late))
		p.flow()
		p.now = p.now.Add(time.Second)
		require.NoError(t, p.client.Tick(p.now, late)) // it pings
		p.flow()
	}
	require.NotErrorIs(t, p.client.Explain(p.client.Stream("a")), ErrLimit)
	require.Zero(t, p.client.Unreceived())

	p.remote.refuse["a"] = wire.Code_CODE_LIMIT // the pauses begin anew
	p.cut()
	p.connect()
	p.flow()
	n := opens()
	p.now = p.now.Add(1100 * time.Millisecond)
	require.NoError(t, p.client.Tick(p.now, late))
	p.flow()
	require.Equal(t, n+1, opens())
}

func TestClient_ReleasesWhatTheReceiverHas(t *testing.T) {
	p := newPair(t, roomy, muchRoom)
	p.connect()
	p.enqueue("settled", 1)
	p.enqueue("received", 1)
	s := newBacklog(p, 1)
	p.flow()
	p.enqueue("received in part", 1)
	p.flow()
	p.remote.settle(p.remote.stream("settled"), 1)
	p.flow()
	p.enqueue("received in part", 1)
	want := []uint64{p.client.Stream("settled").handle, p.client.Stream("received").handle}
	require.True(t, p.client.ReleaseDelivered(ErrEnded))
	require.False(t, p.client.ReleaseDelivered(ErrEnded))
	p.output()
	var ended []uint64
	for _, payload := range p.up {
		frame, err := Decode(payload[:len(payload)-crcSize])
		require.NoError(t, err)
		if f, ok := frame.(*wire.Release); ok {
			ended = append(ended, f.Handle)
		}
	}
	require.Equal(t, want, ended)
	require.Nil(t, p.client.Find("received"))
	for _, seq := range []uint64{1, 1, 2} {
		reject := &wire.Reject{Handle: want[1], Sequence: seq, Code: wire.Code_CODE_FAILED}
		require.NoError(t, p.say(&wire.Frame{Body: &wire.Frame_Reject{Reject: reject}}))
	}
	require.Len(t, p.client.Refused(), 1, "it has crossed the Release")
	require.Equal(t, 2, p.client.Pending(), "what the receiver does not have")
	require.NoError(t, s.o.Err(), "the store's streams come back")
}

// A frame is one body and the checksum. Whatever else is in it, an implementation could take for something else.
func TestDecode_FrameHasOneBodyAndNothingBesideIt(t *testing.T) {
	for name, payload := range map[string][]byte{
		"two pings":                   {0x52, 2, 8, 1, 0x52, 2, 8, 2},
		"a ping and a pong":           {0x52, 2, 8, 1, 0x5a, 2, 8, 2},
		"an unknown field behind":     {0x52, 2, 8, 1, 0x82, 1, 0},
		"an unknown field before":     {0x82, 1, 0, 0x52, 2, 8, 1},
		"an unknown varint behind":    {0x52, 2, 8, 1, 0x80, 1, 0},
		"an early checksum":           {0x7d, 0, 0, 0, 0, 0x52, 2, 8, 1},
		"a checksum behind":           {0x52, 2, 8, 1, 0x7d, 0, 0, 0, 0},
		"nothing but a checksum":      {0x7d, 0, 0, 0, 0},
		"a body that is a varint":     {0x50, 1},
		"a body that is cut":          {0x52, 3, 8, 1},
		"a group":                     {0x53, 0x54},
		"an open with a second empty": append([]byte{0x1a, 2, 8, 1}, 0x1a, 0),
	} {
		_, err := Decode(payload)
		requireViolation(t, err)
		require.NotEmpty(t, name)
	}
	f, err := Decode([]byte{0x52, 5, 0x10, 9, 8, 1, 0x40}[:0:0])
	requireViolation(t, err)
	require.Nil(t, f)
	f, err = Decode([]byte{0x52, 4, 0x10, 9, 8, 1})
	require.NoError(t, err, "unknown fields of a known body are skipped")
	require.EqualValues(t, 1, f.(*wire.Ping).Id)
}

// To pass over a message tells the receiver that it is settled. A store's messages wait for their owner first: one that
// is over the limit is told of once, and goes no further before it is confirmed.
func TestFetched_MessageOverThePeersLimitWaitsForItsOwner(t *testing.T) {
	p := newPair(t, roomy, muchRoom)
	p.remote.welcome.MaxMessage = 1000
	p.connect()
	p.flow()
	o := p.client.StartFetched(Identity{Publisher: [16]byte{9}, Epoch: 1}, 7, "a", 1, 4)
	sizes := []int{10, 2000, 10}
	feed := func() {
		p.flow()
		from, generation, ok := o.NextFetch()
		require.True(t, ok)
		var messages [][]byte
		for seq := from; seq <= 3; seq++ {
			messages = append(messages, content("a", seq, sizes[seq-1]))
		}
		p.client.Feed(o, generation, from, messages)
		p.flow()
	}
	p.client.Announce(o, 4)
	feed()
	s := p.remote.stream("a")
	require.Equal(t, []uint64{1}, s.order)
	events := o.Events()
	require.Len(t, events, 1)
	require.Equal(t, []uint64{2, 2}, []uint64{events[0].First, events[0].Last})
	require.ErrorIs(t, events[0].Err, ErrLimit)
	require.Zero(t, s.in.Outstanding(), "others can use its credit")

	p.cut()
	p.connect()
	feed()
	require.Empty(t, o.Events(), "it is told of once")
	require.Equal(t, []uint64{1}, s.order)
	require.Equal(t, uint64(2), s.in.Next(), "the receiver knows nothing of it")

	s.refused[2] = true // from here on it may be passed over
	p.client.ConfirmRefused(o, 2)
	p.flow()
	require.Equal(t, []uint64{1, 3}, s.order)
	require.Empty(t, frames[*wire.RejectSeen](p))

	// Confirmed without a connection, and of a stream that has ended.
	p.cut()
	p.remote.restart(false)
	sizes[2] = 3000
	p.client.Announce(o, 4)
	p.connect()
	p.flow()
	from, generation, _ := o.NextFetch()
	p.client.Feed(o, generation, from, [][]byte{content("a", 1, 10), content("a", 2, 2000), content("a", 3, 3000)})
	p.flow()
	p.cut()
	p.client.ConfirmRefused(o, 3)
	p.connect()
	p.flow()
	p.remote.settle(p.remote.stream("a"), 1)
	p.client.EndFetched(o)
	p.client.ConfirmRefused(o, 3)
}

// A receiver whose limit was raised takes what it would not before.
func TestFetched_MessageOverTheLimitIsSentWhenTheLimitIsRaised(t *testing.T) {
	p := newPair(t, roomy, muchRoom)
	p.remote.welcome.MaxMessage = 1000
	p.connect()
	s := newBacklog(p, 1)
	s.add(1) // of 5,000 bytes
	for range 5 {
		s.feed()
		p.flow()
	}
	require.Empty(t, p.remote.stream("a").order)
	p.remote.welcome.MaxMessage = 10_000
	p.cut()
	p.connect()
	for range 5 {
		p.flow()
		s.feed()
	}
	require.Equal(t, []uint64{1}, p.remote.stream("a").order)
}

// A receiver that gives no credit says nothing of the messages before one that is over its limit: that one is refused
// all the same, at once, whether it was enqueued before the stream was open or after, and also on a later connection
// with a lower limit.
func TestClient_MessagesOverThePeersLimitNeedNoCredit(t *testing.T) {
	p := newPair(t, roomy, Amount{})
	p.remote.welcome.MaxMessage = 1000
	refused := func() (seqs []uint64) {
		for _, r := range p.refused {
			seqs = append(seqs, r.Sequence)
		}
		return seqs
	}
	p.enqueue("a", 10, 1001, 10, 70<<10, 600)
	w := p.wait("a", Handled, 1, 2)
	p.connect()
	p.flow()
	require.Equal(t, []uint64{2, 4}, refused())
	require.False(t, done(w), "its other message waits")
	p.enqueue("a", 1001, 10, 5000)
	p.flow()
	require.Equal(t, []uint64{2, 4, 6, 8}, refused())

	p.cut()
	p.remote.welcome.MaxMessage = 500
	p.connect()
	p.flow()
	require.Equal(t, []uint64{2, 4, 6, 8, 5}, refused())

	s := p.remote.stream("a")
	for _, seq := range refused() {
		s.refused[seq] = true // these may be passed over
	}
	p.remote.grant(s, muchRoom)
	p.flow()
	require.Equal(t, []uint64{1, 3, 7}, s.order)
	p.remote.settle(s, 1, 3, 7)
	p.flow()
	require.Zero(t, p.client.Pending())
	require.ErrorIs(t, w.Err, ErrLimit)
}

// What was sent may be with a handler, whatever the receiver takes by now: only what it lacks is refused.
func TestClient_MessagesOverTheLimitThatTheReceiverHasAreNotRefused(t *testing.T) {
	p := newPair(t, roomy, muchRoom)
	p.connect()
	p.flow()
	p.enqueue("a", 5000)
	p.flow()
	p.cut()
	p.remote.welcome.MaxMessage = 1000
	p.enqueue("a", 5000)
	p.connect()
	p.remote.stream("a").refused[2] = true
	p.flow()
	require.Len(t, p.refused, 1)
	require.EqualValues(t, 2, p.refused[0].Sequence)
}

// A store's messages over the limit are told of as soon as they were fetched, each once, and none is passed over before
// its owner has dealt with it.
func TestFetched_MessagesOverThePeersLimitNeedNoCredit(t *testing.T) {
	p := newPair(t, roomy, Amount{})
	p.remote.welcome.MaxMessage = 1000
	p.connect()
	p.flow()
	o := p.client.StartFetched(Identity{Publisher: [16]byte{9}, Epoch: 1}, 7, "a", 1, 5)
	p.client.Announce(o, 5)
	p.flow()
	from, generation, ok := o.NextFetch()
	require.True(t, ok)
	var messages [][]byte
	for i, size := range []int{10, 2000, 10, 3000} {
		messages = append(messages, content("a", from+uint64(i), size))
	}
	p.client.Feed(o, generation, from, messages)
	p.flow()
	var told []uint64
	for _, e := range o.Events() {
		require.ErrorIs(t, e.Err, ErrLimit)
		told = append(told, e.First)
	}
	require.Equal(t, []uint64{2, 4}, told)

	s := p.remote.stream("a")
	s.refused[4] = true
	p.client.ConfirmRefused(o, 4) // the later one first
	p.remote.grant(s, muchRoom)
	p.flow()
	require.Equal(t, []uint64{1}, s.order)
	s.refused[2] = true
	p.client.ConfirmRefused(o, 2)
	p.flow()
	p.remote.grant(s, muchRoom) // it had given back what it could not use
	p.flow()
	require.Equal(t, []uint64{1, 3}, s.order)
	require.Empty(t, o.Events())
}

// Refused messages that stand between others take no room of what is fetched ahead: the stream goes on behind them,
// with credit or without.
func TestFetched_MessagesOverTheLimitTakeNoRoom(t *testing.T) {
	for name, room := range map[string]Amount{"without credit": {}, "with credit": muchRoom} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t, roomy, room)
			p.remote.welcome.MaxMessage = 1000
			p.connect()
			p.flow()
			const last = 24
			o := p.client.StartFetched(Identity{Publisher: [16]byte{9}, Epoch: 1}, 7, "a", 1, last+1)
			p.client.Announce(o, last+1)
			size := func(seq uint64) int {
				if seq%3 == 1 {
					return 10
				}
				return 90_000
			}
			var told, small []uint64
			for range 2 * last {
				p.flow()
				for from, generation, ok := o.NextFetch(); ok && from <= last; from, generation, ok = o.NextFetch() {
					p.client.Feed(o, generation, from, [][]byte{content("a", from, size(from))})
				}
				p.flow()
				for _, e := range o.Events() {
					told = append(told, e.First)
					p.remote.stream("a").refused[e.First] = true
					p.client.ConfirmRefused(o, e.First)
				}
			}
			s := p.remote.stream("a")
			if room == (Amount{}) {
				p.remote.grant(s, muchRoom)
				p.flow()
			}
			for seq := uint64(1); seq <= last; seq += 3 {
				small = append(small, seq)
			}
			require.Len(t, told, 2*last/3)
			require.Equal(t, small, s.order)
			require.Zero(t, o.bytes)
		})
	}
}
