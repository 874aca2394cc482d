package session

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/wire"
)

// mover returns a Client that has opened a stream and sent n messages of it, and the stream.
func mover(t *testing.T, n int) (*pair, *Outbound) {
	p := newPair(t, roomy, muchRoom)
	p.client.cfg.MoveAfter = time.Second
	p.connect()
	p.output()
	require.NoError(t, p.say(&wire.Frame{Body: &wire.Frame_Welcome{Welcome: &wire.Welcome{
		Version: 1, MaxFrame: MinFrame, MaxMessage: 1 << 20, Features: []string{FeatureMove}, Instance: make([]byte, 16),
	}}}))
	o := p.client.StartStream(Identity{Publisher: [16]byte{1}, Epoch: 1}, 7, "t", false)
	var b Batch
	for i := range n {
		add(t, &b, content("t", uint64(i+1), 10))
	}
	_, _, err := p.client.Enqueue(o, &b, 0, nil)
	require.NoError(t, err)
	p.output()
	require.NoError(t, p.say(&wire.Frame{Body: &wire.Frame_Opened{Opened: &wire.Opened{Handle: o.handle, Next: 1}}}))
	require.NoError(t, p.sayAck(AckFrame{Handle: o.handle, Messages: uint64(n), Bytes: 1 << 20}))
	p.output()
	require.EqualValues(t, n+1, o.sent)
	return p, o
}

func returned(o *Outbound, f *wire.Returned) *wire.Frame {
	f.Handle = o.handle
	return &wire.Frame{Body: &wire.Frame_Returned{Returned: f}}
}

func TestMove_MarksWhatMayHaveBeenWithAConsumer(t *testing.T) {
	p, o := mover(t, 10)
	require.False(t, p.client.MayMove(o))
	require.True(t, p.client.Leave(o, p.now))
	require.NoError(t, p.say(returned(o, &wire.Returned{Next: 9, Settled: []uint64{1, 1}, Returned: []uint64{4, 5, 7, 8}, InHand: 3})))
	require.False(t, p.client.MayMove(o), "consumers have some")
	require.NoError(t, p.say(returned(o, &wire.Returned{Next: 9, Settled: []uint64{2, 2}, Returned: []uint64{4, 5, 7, 8}})))
	require.True(t, p.client.MayMove(o))
	require.Equal(t, 2, p.client.Detach(o), "3 and 6; 9 and 10 have not arrived")
	require.EqualValues(t, 2, o.Tenure())
	for seq := uint64(3); seq <= 10; seq++ {
		require.Equal(t, seq == 3 || seq == 6, o.again.Has(seq), seq)
	}
	n, again := o.sameKind(3, 8)
	require.Equal(t, []any{uint64(1), true}, []any{n, again})
	n, again = o.sameKind(4, 7)
	require.Equal(t, []any{uint64(2), false}, []any{n, again})
	require.Equal(t, 2, o.Repeats())
}

// What is revoked has lapsed: an end of this side counts it, also what a consumer has in hand, and does not release the stream.
func TestMove_ReceivedLapsesWithTheRevoke(t *testing.T) {
	p, o := mover(t, 3)
	require.NoError(t, p.sayAck(AckFrame{Handle: o.handle, Next: 4}))
	require.Zero(t, p.client.Undelivered(o))
	require.Zero(t, p.client.Stats()[0].Unreceived)
	require.True(t, p.client.Leave(o, p.now))
	require.Equal(t, 3, p.client.Undelivered(o))
	require.Equal(t, 3, p.client.Stats()[0].Unreceived)
	require.NoError(t, p.say(returned(o, &wire.Returned{Next: 4, Settled: []uint64{1, 1}, Returned: []uint64{3, 3}, InHand: 1})))
	require.Equal(t, 2, p.client.Undelivered(o))
	require.False(t, p.client.Delivered(o, 3))
	require.Len(t, p.client.Leftovers(), 2)
	require.False(t, p.client.ReleaseDelivered(ErrEnded))
}

func TestMove_MemoryOfAMovedStreamIsNotUsedAgain(t *testing.T) {
	p, o := mover(t, 3)
	p.client.Disconnect()
	p.client.Refuse()
	require.Equal(t, 3, p.client.Detach(o))
	to := NewClient(p.client.cfg)
	to.Adopt(o)
	o.settle(1, 3)
	require.Empty(t, to.freeLater.buffers, "the other Client may still write from it")
}

func TestMove_RefusesWhatCannotBe(t *testing.T) {
	for name, f := range map[string]*wire.Returned{
		"next beyond what was sent":     {Next: 12},
		"settled beyond what was sent":  {Next: 3, Settled: []uint64{11, 11}},
		"returned beyond what was sent": {Next: 3, Returned: []uint64{10, 11}},
		"half a pair":                   {Next: 3, Returned: []uint64{1}},
		"a range that ends before":      {Next: 3, Settled: []uint64{3, 2}},
	} {
		p, o := mover(t, 10)
		p.client.Leave(o, p.now)
		var broken *ProtocolError
		require.ErrorAs(t, p.say(returned(o, f)), &broken, name)
	}
	p, o := mover(t, 1)
	var broken *ProtocolError
	require.ErrorAs(t, p.say(returned(o, &wire.Returned{Next: 1})), &broken, "it was not revoked")
}

func TestMove_SilenceIsCountedInTicks(t *testing.T) {
	p, _ := mover(t, 1)
	require.NoError(t, p.client.Tick(p.now, late))
	p.now = p.now.Add(time.Hour) // this side was stopped itself
	_ = p.client.Tick(p.now, late)
	require.False(t, p.client.Silent())
}

// When the streams have moved away nothing is unsettled there any more, and yet nothing may go there.
func TestMove_SilentUntilItIsHeard(t *testing.T) {
	p, o := mover(t, 1)
	tick := func() {
		p.now = p.now.Add(100 * time.Millisecond)
		require.NoError(t, p.client.Tick(p.now, late))
	}
	for range 12 {
		tick()
	}
	require.True(t, p.client.Silent())
	p.client.Detach(o)
	for range 12 {
		tick()
		require.True(t, p.client.Silent())
	}
	require.NoError(t, p.say(&wire.Frame{Body: &wire.Frame_Pong{Pong: &wire.Pong{}}}))
	require.False(t, p.client.Silent(), "what is sent before the next Tick does not move without an answer")
	tick()
	require.False(t, p.client.Silent())
}

// TestMove_AReceiverIsSilentThatDoesNotAnswerAnOpen: nothing was sent to it, and nothing will be.
func TestMove_AReceiverIsSilentThatDoesNotAnswerAnOpen(t *testing.T) {
	p, o := mover(t, 1)
	require.NoError(t, p.sayAck(AckFrame{Handle: o.handle, Next: 2, Settled: []uint64{1, 1}}))
	fresh := p.client.StartStream(Identity{Publisher: [16]byte{1}, Epoch: 1}, 8, "t", false)
	var b Batch
	add(t, &b, content("t", 1, 10))
	_, _, err := p.client.Enqueue(fresh, &b, 0, nil)
	require.NoError(t, err)
	for range 20 {
		p.now = p.now.Add(200 * time.Millisecond)
		require.NoError(t, p.client.Tick(p.now, late))
		p.output()
	}
	require.Zero(t, fresh.sentTo)
	require.True(t, p.client.Silent())
}

// TestMove_ASilentReceiverIsSilentUntilItIsHeard, also when nothing waits for it any more, as all has moved away: else the next messages
// would be sent there.
func TestMove_ASilentReceiverIsSilentUntilItIsHeard(t *testing.T) {
	tick := func(p *pair) {
		for range 20 {
			p.now = p.now.Add(200 * time.Millisecond)
			require.NoError(t, p.client.Tick(p.now, late))
			p.output()
		}
	}
	silence := func() *pair {
		p, o := mover(t, 3)
		tick(p)
		require.True(t, p.client.Silent())
		require.Equal(t, 3, p.client.Detach(o))
		tick(p)
		require.True(t, p.client.Silent())
		return p
	}
	p := silence()
	require.NoError(t, p.say(&wire.Frame{Body: &wire.Frame_Pong{Pong: &wire.Pong{}}}))
	tick(p)
	require.False(t, p.client.Silent())

	p = silence()
	p.client.Disconnect()
	require.True(t, p.client.Silent())
	p.client.Refuse()
	require.Equal(t, []bool{false, true}, []bool{p.client.Silent(), p.client.Gone()}, "the host has answered: nothing listens there")
}

// What has left a receiver is told to it once. One that turns out not to know moves cannot be told.
func TestMove_AReceiverIsToldOnceWhatHasLeft(t *testing.T) {
	for name, features := range map[string][]string{"it knows moves": {FeatureMove}, "it does not": nil} {
		p := newPair(t, roomy, muchRoom)
		p.client.cfg.MoveAfter = time.Second
		p.client.LeftBehind(Identity{Publisher: [16]byte{1}, Epoch: 1}, 7, "t", 2)
		require.True(t, p.client.Left(), name)
		p.connect()
		p.output()
		require.NoError(t, p.say(&wire.Frame{Body: &wire.Frame_Welcome{Welcome: &wire.Welcome{
			Version: 1, MaxFrame: MinFrame, MaxMessage: 1 << 20, Features: features,
		}}}))
		require.Equal(t, features != nil, p.client.Left(), name)
		if features == nil {
			continue
		}
		answer := &wire.Returned{Handle: p.client.peer.left[0].handle, Next: 3, InHand: 1} // a consumer has one, and goes on
		require.NoError(t, p.say(&wire.Frame{Body: &wire.Frame_Returned{Returned: answer}}))
		require.False(t, p.client.Left(), name)
		require.NoError(t, p.say(&wire.Frame{Body: &wire.Frame_Returned{Returned: answer}}), "an answer that is late")
	}
}

// A grant crosses the Revoke on the wire: what it is for must not be sent any more.
func TestMove_SendsNothingWhileItIsRevoked(t *testing.T) {
	p, o := mover(t, 3)
	var b Batch
	add(t, &b, content("t", 4, 10))
	_, _, err := p.client.Enqueue(o, &b, 0, nil)
	require.NoError(t, err)
	require.True(t, p.client.Leave(o, p.now))
	require.NoError(t, p.sayAck(AckFrame{Handle: o.handle, Messages: 10, Bytes: 2 << 20}))
	control, segments, _ := p.client.Output(nil, 1<<20)
	require.NotEmpty(t, control)
	require.Empty(t, segments)
}

// A stream that is to leave a receiver which turns out not to know how goes on there.
func TestMove_GoesOnWhereTheReceiverDoesNotKnowHow(t *testing.T) {
	for name, again := range map[string]bool{"found out when it is met": false, "found out before": true} {
		p := newPair(t, roomy, muchRoom)
		p.client.cfg.MoveAfter = time.Second
		o := p.client.StartFetched(Identity{Publisher: [16]byte{1}, Epoch: 1}, 7, "t", 1, 4) // an earlier process may have sent three
		p.client.Announce(o, 4)
		require.True(t, p.client.Leave(o, p.now), name)
		p.connect()
		p.output()
		require.NoError(t, p.say(&wire.Frame{Body: &wire.Frame_Welcome{Welcome: &wire.Welcome{
			Version: 1, MaxFrame: MinFrame, MaxMessage: 1 << 20,
		}}}))
		require.True(t, p.client.TookMoves(), name)
		if again {
			o.leaving = true
			require.False(t, p.client.Leave(o, p.now))
		}
		require.False(t, o.Leaving(), name)
		require.Equal(t, opening, o.state, name)
	}
}

// TestMove_AStreamThatStaysAfterAllBeginsOneTenure: a connection that is lost later is no reason for another, which would have the
// receiver void what it has.
func TestMove_AStreamThatStaysAfterAllBeginsOneTenure(t *testing.T) {
	p, o := mover(t, 3)
	require.True(t, p.client.Leave(o, p.now))
	require.NoError(t, p.say(returned(o, &wire.Returned{Next: 4, Returned: []uint64{1, 3}})))
	require.EqualValues(t, 2, o.Tenure())
	p.client.Stay(o)
	p.output()
	require.NoError(t, p.say(&wire.Frame{Body: &wire.Frame_Opened{Opened: &wire.Opened{Handle: o.handle, Next: 1}}}))
	require.NoError(t, p.sayAck(AckFrame{Handle: o.handle, Messages: 3, Bytes: 1 << 20}))
	p.output()
	require.EqualValues(t, 4, o.sent)
	p.client.Disconnect()
	require.EqualValues(t, 2, o.Tenure())
	require.Zero(t, o.Repeats())
}
