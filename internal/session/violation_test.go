package session

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/wire"
)

func requireViolation(t *testing.T, err error) {
	t.Helper()
	var broken *ProtocolError
	require.ErrorAs(t, err, &broken)
	require.NotEmpty(t, broken.Rule)
}

// TestClient_RefusesPeersThatBreakTheProtocol tries each offence on a stream of ten messages of which six were sent,
// credit is for eight, and the second is settled.
func TestClient_RefusesPeersThatBreakTheProtocol(t *testing.T) {
	const handle = 1
	ack := func(a AckFrame) func(*pair) error {
		a.Handle = handle
		return func(p *pair) error { return p.sayAck(a) }
	}
	say := func(f *wire.Frame) func(*pair) error { return func(p *pair) error { return p.say(f) } }
	reject := func(handle, seq uint64) func(*pair) error {
		return say(&wire.Frame{Body: &wire.Frame_Reject{Reject: &wire.Reject{Handle: handle, Sequence: seq}}})
	}
	for name, offend := range map[string]func(*pair) error{
		"ack beyond what was sent":        ack(AckFrame{Next: 8}),
		"ack beyond what there is":        ack(AckFrame{Next: 1 << 60}),
		"ack goes back":                   ack(AckFrame{Next: 6}),
		"fewer messages of credit":        ack(AckFrame{Messages: 7, Bytes: 1000}),
		"fewer bytes of credit":           ack(AckFrame{Messages: 8, Bytes: 799}),
		"more messages with fewer bytes":  ack(AckFrame{Messages: 9, Bytes: 1}),
		"settled beyond received":         ack(AckFrame{Settled: []uint64{1, 7}}),
		"settled far beyond received":     ack(AckFrame{Settled: []uint64{1, ^uint64(0)}}),
		"settled before received":         ack(AckFrame{Settled: []uint64{7, 7}}),
		"settled upside down":             ack(AckFrame{Settled: []uint64{4, 3}}),
		"settled without end":             ack(AckFrame{Settled: []uint64{1, 2, 3}}),
		"settled the sequence zero":       ack(AckFrame{Settled: []uint64{0, 2}}),
		"ack of an unknown stream":        func(p *pair) error { return p.sayAck(AckFrame{Handle: 77, Next: 1}) },
		"reject of what was not sent":     reject(handle, 7),
		"reject of what there is not":     reject(handle, 1<<60),
		"reject of an unknown stream":     reject(77, 1),
		"second opened":                   say(&wire.Frame{Body: &wire.Frame_Opened{Opened: &wire.Opened{Handle: handle, Next: 7}}}),
		"opened unasked":                  say(&wire.Frame{Body: &wire.Frame_Opened{Opened: &wire.Opened{Handle: 77, Next: 1}}}),
		"second welcome":                  say(&wire.Frame{Body: &wire.Frame_Welcome{Welcome: &wire.Welcome{Version: 1, MaxFrame: 1 << 20}}}),
		"hello from the listener":         say(&wire.Frame{Body: &wire.Frame_Hello{Hello: &wire.Hello{Version: 1}}}),
		"open from the listener":          say(&wire.Frame{Body: &wire.Frame_Open{Open: &wire.Open{Handle: 5}}}),
		"want from the listener":          say(&wire.Frame{Body: &wire.Frame_Want{Want: &wire.Want{Handle: handle}}}),
		"release from the listener":       say(&wire.Frame{Body: &wire.Frame_Release{Release: &wire.Release{Handle: handle}}}),
		"reject seen from the listener":   say(&wire.Frame{Body: &wire.Frame_RejectSeen{RejectSeen: &wire.RejectSeen{Handle: handle}}}),
		"noise":                           func(p *pair) error { return p.client.Receive([]byte{1, 2, 3}, p.now) },
		"nothing":                         func(p *pair) error { return p.client.Receive(nil, p.now) },
		"publish from the listener":       func(p *pair) error { return p.client.Receive(publishOf([]byte{8, 1, 16, 1, 0x22, 0}), p.now) },
		"frame without a body but the id": say(&wire.Frame{}),
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t, roomy, muchRoom)
			p.remote.manual = true
			p.connect()
			p.enqueue("a", many(6)...)
			p.flow()
			s := p.remote.stream("a")
			p.remote.grant(s, Amount{Messages: 8, Bytes: 800})
			p.flow()
			p.remote.settle(s, 2)
			p.flow()
			require.Equal(t, 5, p.client.Pending())
			w := p.wait("a", Handled, 1, 6)

			requireViolation(t, offend(p))
			require.False(t, done(w))
			require.Empty(t, p.client.Refused())
			require.Equal(t, 6, s.in.Unsettled()+1)

			p.remote.manual = false // a connection later all is well, with what the peer was right about
			p.cut()
			p.connect()
			p.flow()
			p.remote.settle(s, s.order...)
			p.flow()
			require.True(t, done(w))
			require.NoError(t, w.Err)
			require.Zero(t, p.client.Pending())
			require.Equal(t, upTo(6), s.order)
		})
	}
}

func TestClient_OpenedMustBeWellFormed(t *testing.T) {
	for name, f := range map[string]*wire.Opened{
		"next zero":              {},
		"next below the base":    {Next: 2},
		"settled with next zero": {Settled: []uint64{1, 1}},
		"settled upside down":    {Next: 3, Settled: []uint64{3, 2}},
		"settled half":           {Next: 3, Settled: []uint64{3}},
		"settled sequence zero":  {Next: 3, Settled: []uint64{0, 1}},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t, roomy, muchRoom)
			p.enqueue("a", many(10)...)
			p.connect()
			p.flow()
			p.remote.settle(p.remote.stream("a"), 1, 2)
			p.flow()
			p.reopen()
			f.Handle = 1
			requireViolation(t, p.say(&wire.Frame{Body: &wire.Frame_Opened{Opened: f}}))
			require.Equal(t, 8, p.client.Pending())
		})
	}
}

func TestClient_Greeting(t *testing.T) {
	for name, c := range map[string]struct {
		frame *wire.Frame
		check func(*testing.T, error)
	}{
		"ack first":           {&wire.Frame{Body: &wire.Frame_Pong{Pong: &wire.Pong{}}}, requireViolation},
		"goaway first":        {&wire.Frame{Body: &wire.Frame_Goaway{Goaway: &wire.Goaway{}}}, requireViolation},
		"tiny frames":         {&wire.Frame{Body: &wire.Frame_Welcome{Welcome: &wire.Welcome{Version: 1, MaxFrame: MinFrame - 1}}}, requireViolation},
		"messages of nothing": {&wire.Frame{Body: &wire.Frame_Welcome{Welcome: &wire.Welcome{Version: 1, MaxFrame: 1 << 20}}}, requireViolation},
		"other version":       {&wire.Frame{Body: &wire.Frame_Welcome{Welcome: &wire.Welcome{Version: 9, MaxFrame: 1 << 20}}}, requireRefusal(wire.Code_CODE_VERSION)},
		"refused": {
			&wire.Frame{Body: &wire.Frame_Failure{Failure: &wire.Failure{Code: wire.Code_CODE_UNAUTHENTICATED, Reason: "who"}}},
			requireRefusal(wire.Code_CODE_UNAUTHENTICATED),
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t, roomy, muchRoom)
			p.connect()
			p.enqueue("a", 1)
			c.check(t, p.say(c.frame))
			require.False(t, p.client.Established())
			require.Equal(t, 1, p.client.Pending())
		})
	}
	p := newPair(t, roomy, muchRoom)
	p.enqueue("a", 1)
	p.connect()
	p.output()
	require.Len(t, p.up, 1, "nothing but the hello before the welcome")
	require.NoError(t, p.deliverUp(1))
	require.Equal(t, uint64(MaxFrame(1<<20)), frames[*wire.Hello](p)[0].MaxFrame)
}

func requireRefusal(code wire.Code) func(*testing.T, error) {
	return func(t *testing.T, err error) {
		t.Helper()
		var refused *PeerError
		require.ErrorAs(t, err, &refused)
		require.Equal(t, code, refused.code)
	}
}

// A stream that is refused fails every waiter at once, gives back what it kept, and can be tried again.
func TestClient_OpenedWithARefusal(t *testing.T) {
	p := newPair(t, Window{Messages: 5, Bytes: 1 << 20}, muchRoom)
	p.remote.refuse["a"] = wire.Code_CODE_TOPIC_GONE
	require.Equal(t, 5, p.enqueue("a", many(7)...))
	old := p.client.Stream("a")
	room := old.Room()
	received, handled := p.wait("a", Received, 1, 2), p.wait("a", Handled, 1, 5)
	p.enqueue("b", 1)
	p.connect()
	p.flow()
	for _, w := range []*Waiter{received, handled} {
		require.True(t, done(w))
		requireRefusal(wire.Code_CODE_TOPIC_GONE)(t, w.Err)
	}
	<-room
	require.Len(t, p.refused, 5)
	for i, r := range p.refused {
		require.Equal(t, uint64(i+1), r.Sequence)
		require.Equal(t, string(content("a", r.Sequence, 0)), string(r.Message))
	}
	requireRefusal(wire.Code_CODE_TOPIC_GONE)(t, old.Err())
	require.Len(t, p.remote.stream("b").held, 1, "other streams do not care")
	require.NoError(t, p.sayAck(AckFrame{Handle: 1, Next: 1}), "what crossed the refusal is passed over")
	require.Equal(t, 1, p.client.Pending())

	delete(p.remote.refuse, "a")
	require.NotSame(t, old, p.client.Stream("a"))
	p.enqueue("a", 1)
	p.flow()
	require.Len(t, p.remote.stream("a").held, 1)
	p.cut()
	p.connect()
	p.flow()
	require.Zero(t, p.client.Unreceived())
}

// A reject of sequence zero is of the whole stream: nothing more comes for it.
func TestClient_StreamCanBeRefusedLater(t *testing.T) {
	p := newPair(t, roomy, muchRoom)
	p.connect()
	p.enqueue("a", many(5)...)
	p.enqueue("b", 1)
	p.flow()
	s := p.remote.stream("a")
	p.remote.settle(s, 2)
	p.flow()
	old, w := p.client.Stream("a"), p.wait("a", Handled, 1, 5)
	p.enqueue("a", many(2)...)
	gone := &wire.Reject{Handle: 1, Code: wire.Code_CODE_TOPIC_GONE, Reason: "gone"}
	require.NoError(t, p.say(&wire.Frame{Body: &wire.Frame_Reject{Reject: gone}}))
	require.True(t, done(w))
	requireRefusal(wire.Code_CODE_TOPIC_GONE)(t, w.Err)
	requireRefusal(wire.Code_CODE_TOPIC_GONE)(t, old.Err())
	var seqs []uint64
	for _, r := range p.client.Refused() {
		seqs = append(seqs, r.Sequence)
	}
	require.Equal(t, []uint64{1, 3, 4, 5, 6, 7}, seqs)
	require.Equal(t, 1, p.client.Pending(), "the other stream's")
	require.NoError(t, p.sayAck(AckFrame{Handle: 1, Settled: []uint64{1, 1}, Messages: 100, Bytes: 1000}), "it crossed the end")
	require.NoError(t, p.say(&wire.Frame{Body: &wire.Frame_Reject{Reject: &wire.Reject{Handle: 1, Sequence: 3}}}), "so did this")
	require.NotSame(t, old, p.client.Stream("a"))
	control, segments, _ := p.client.Output(nil, 1<<20)
	require.Empty(t, segments)
	require.Len(t, payloads(t, p.enc, control), 1)
	released, err := p.enc.Verify(payload(t, p.enc, control))
	require.NoError(t, err)
	frame, err := Decode(released)
	require.NoError(t, err)
	require.Equal(t, uint64(1), frame.(*wire.Release).Handle)
}

func TestClient_PingsSilenceThenGivesUp(t *testing.T) {
	p := newPair(t, roomy, muchRoom)
	require.NoError(t, p.client.Tick(p.now.Add(time.Hour), late), "no connection, no silence")
	p.connect()
	p.flow()
	tick := func(after time.Duration) error { return p.client.Tick(p.now.Add(after), late) }
	require.NoError(t, tick(9*time.Second))
	require.False(t, p.pending())
	require.NoError(t, tick(10*time.Second))
	require.NoError(t, tick(11*time.Second))
	p.output()
	require.Len(t, p.up, 1, "one ping")
	p.now = p.now.Add(12 * time.Second)
	p.flow() // the pong comes
	require.Len(t, frames[*wire.Ping](p), 1)
	require.NoError(t, tick(9*time.Second))
	require.NoError(t, tick(29*time.Second))
	p.output()
	require.Len(t, p.up, 1, "another one")
	require.ErrorIs(t, tick(30*time.Second), ErrSilent)
	require.NoError(t, p.say(&wire.Frame{Body: &wire.Frame_Ping{Ping: &wire.Ping{Id: 42}}}))
	p.flow()
	require.Equal(t, uint64(42), frames[*wire.Pong](p)[0].Id)
}

func TestClient_GoawayStopsSendingButNotAcks(t *testing.T) {
	p := newPair(t, roomy, muchRoom)
	p.connect()
	p.enqueue("a", many(3)...)
	p.flow()
	require.True(t, p.client.Established())
	require.NoError(t, p.say(&wire.Frame{Body: &wire.Frame_Goaway{Goaway: &wire.Goaway{}}}))
	require.True(t, p.client.Draining())
	p.enqueue("a", many(3)...)
	p.enqueue("new", 1)
	before := len(p.published)
	p.remote.settle(p.remote.stream("a"), 1, 2, 3)
	p.flow()
	require.Len(t, p.published, before)
	require.Equal(t, 4, p.client.Pending())
	p.cut()
	require.False(t, p.client.Draining())
	p.connect()
	p.flow()
	require.Zero(t, p.client.Unreceived())
}
