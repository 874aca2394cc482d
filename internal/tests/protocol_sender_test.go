package tests

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/internal/wire"
	"github.com/buffstreams/watermill-buffstreams/store"
)

// opens opens a stream, which the receiver has to grant.
func (p *wirePeer) opens(o *wire.Open) *script {
	p.t.Helper()
	p.send(o)
	opened := take[*wire.Opened](p)
	require.Equal(p.t, wire.Code_CODE_UNSPECIFIED, opened.Code, opened.Reason)
	require.Equal(p.t, o.Handle, opened.Handle)
	s := &script{wirePeer: p, handle: o.Handle, opened: opened, next: opened.Next, settled: map[uint64]bool{}}
	s.settle(opened.Settled)
	return s
}

func flags(gap bool) uint32 {
	if gap {
		return flagGap | flagPrompt
	}
	return flagPrompt
}

// script is the sender's side of one stream on one connection, and what it was told.
type script struct {
	*wirePeer
	handle          uint64
	opened          *wire.Opened
	next            uint64
	settled         map[uint64]bool
	messages, bytes uint64 // credit
	rejects         []*wire.Reject
}

// opening is an Open of the scripts' publisher.
func opening(change func(*wire.Open)) *wire.Open {
	o := &wire.Open{
		Handle: 7, Publisher: bytes.Repeat([]byte{0xa1}, 16), Epoch: 5, Secret: bytes.Repeat([]byte{0xb2}, 16),
		Stream: 3, Topic: "a", Base: 1, WantMessages: 3, WantBytes: 100, LeastBytes: 10,
	}
	if change != nil {
		change(o)
	}
	return o
}

func (s *script) settle(pairs []uint64) {
	require.Zero(s.t, len(pairs)%2)
	for i := 0; i < len(pairs); i += 2 {
		require.LessOrEqual(s.t, pairs[i], pairs[i+1])
		for seq := pairs[i]; seq <= pairs[i+1]; seq++ {
			s.settled[seq] = true
		}
	}
}

// until takes frames until done.
func (s *script) until(done func() bool) {
	s.t.Helper()
	for !done() {
		frame, err := s.readFrame()
		require.NoError(s.t, err)
		switch f := decodeFrame(s.t, frame).(type) {
		case *wire.Ack:
			require.Equal(s.t, s.handle, f.Handle)
			s.next = max(s.next, f.Next)
			s.settle(f.Settled)
			if len(f.Settled) > 0 {
				require.Less(s.t, slices.Max(f.Settled), s.next, "settled what was not received")
			}
			s.messages, s.bytes = max(s.messages, f.CreditMessages), max(s.bytes, f.CreditBytes)
		case *wire.Reject:
			s.rejects = append(s.rejects, f)
		default:
			require.Fail(s.t, "unexpected frame", "%T: %v", f, f)
		}
	}
}

// credited waits for credit.
func (s *script) credited() *script {
	s.t.Helper()
	s.until(func() bool { return s.messages >= 3 && s.bytes >= 100 })
	return s
}

func (s *script) publish(first uint64, gap bool, messages ...[]byte) {
	s.t.Helper()
	s.send(&wire.Publish{Handle: s.handle, First: first, Flags: flags(gap), Messages: messages})
}

func TestProtocol_SenderWrittenFromTheDocument(t *testing.T) {
	h := newHouse(t, buffstreams.ManagerConfig{})
	sub := h.newSubscriber(t, func(c *buffstreams.SubscriberConfig) { c.MaxInFlight = 8 })
	messages := subscribe(t, sub, h.topic("a"))
	m := func(payload string) []byte { return envelope(t, payload) }

	s := greetedPeer(t, h.address).opens(opening(nil))
	require.EqualValues(t, 1, s.opened.Next)
	require.Empty(t, s.opened.Settled)
	s.credited()
	s.publish(1, false, m("1"), m("2"))
	s.publish(3, false, m("3"))
	s.until(func() bool { return s.next == 4 })
	receivePayload(t, messages, "1").Ack()
	second := receivePayload(t, messages, "2")
	receivePayload(t, messages, "3").Ack()
	s.until(func() bool { return s.settled[1] && s.settled[3] })
	require.False(t, s.settled[2])

	// A sender that lost the acks resumes where the receiver stands; what it repeats is dropped.
	s.cut()
	s = greetedPeer(t, h.address).opens(opening(func(o *wire.Open) { o.Handle = 9 }))
	require.EqualValues(t, 4, s.opened.Next)
	require.Equal(t, []uint64{1, 1, 3, 3}, s.opened.Settled)
	s.credited()
	s.publish(2, false, m("2"), m("3"), m("4"))
	s.publish(4, false, m("4"))
	s.publish(5, false, m("5"))
	receivePayload(t, messages, "4").Ack()
	receivePayload(t, messages, "5").Ack()
	second.Ack()
	s.until(func() bool { return s.settled[2] && s.settled[4] && s.settled[5] })
	require.EqualValues(t, 6, s.next)

	// Sequences that the sender closed are passed over, and settled with that.
	s.publish(8, true, m("8"))
	receivePayload(t, messages, "8").Ack()
	s.until(func() bool { return s.settled[8] })

	// A Reject is repeated until it is confirmed.
	s.publish(9, false, []byte("\xff\xff"))
	s.until(func() bool { return len(s.rejects) > 0 })
	for range 2 {
		require.Len(t, s.rejects, 1)
		require.EqualValues(t, 9, s.rejects[0].Sequence)
		require.Equal(t, wire.Code_CODE_UNDECODABLE, s.rejects[0].Code)
		require.NotEmpty(t, s.rejects[0].Reason)
		s.cut()
		s = greetedPeer(t, h.address).opens(opening(func(o *wire.Open) { o.Base = 6 }))
		require.EqualValues(t, 10, s.opened.Next)
		require.Equal(t, []uint64{6, 8}, s.opened.Settled)
		s.until(func() bool { return len(s.rejects) > 0 })
	}
	s.send(&wire.RejectSeen{Handle: s.handle, Sequence: 9})
	s.sync()
	s.cut()
	s = greetedPeer(t, h.address).opens(opening(func(o *wire.Open) { o.Base = 9 }))
	require.Equal(t, []uint64{9, 9}, s.opened.Settled)
	s.credited()
	s.publish(10, false, m("10"))
	receivePayload(t, messages, "10").Ack()
	s.until(func() bool { return s.settled[10] })
	require.Empty(t, s.rejects)

	// After a Release nothing is left of the stream.
	s.send(&wire.Release{Handle: s.handle})
	s.sync()
	s = s.opens(opening(nil))
	require.EqualValues(t, 1, s.opened.Next)
	// A base above what the receiver knows closes what lies below.
	s.cut()
	s = greetedPeer(t, h.address).opens(opening(func(o *wire.Open) { o.Base = 100 }))
	require.EqualValues(t, 100, s.opened.Next)
	require.Empty(t, s.opened.Settled)
}

func TestProtocol_CreditIsReturnedUnlessAGrantCrossed(t *testing.T) {
	h := newHouse(t, buffstreams.ManagerConfig{})
	messages := subscribe(t, h.newSubscriber(t, nil), h.topic("a"))
	s := greetedPeer(t, h.address).opens(opening(nil)).credited()
	s.send(&wire.Want{Handle: s.handle, SeenMessages: s.messages - 1}) // as if the grant was not known yet
	s.publish(1, false, envelope(t, "1"))
	receivePayload(t, messages, "1").Ack()
	s.until(func() bool { return s.settled[1] })
	s.send(&wire.Want{Handle: s.handle, SeenMessages: s.messages})
	s.publish(2, false, envelope(t, "2"))
	code, failed := s.ended()
	require.True(t, failed)
	require.Equal(t, wire.Code_CODE_PROTOCOL, code)
}

func TestProtocol_CreditWaitsForTheTopic(t *testing.T) {
	h := newHouse(t, buffstreams.ManagerConfig{})
	sub := h.newSubscriber(t, nil)
	require.NoError(t, sub.SubscribeInitialize(h.topic("another")))
	s := greetedPeer(t, h.address).opens(opening(nil))
	s.send(&wire.Ping{Id: 3})
	require.EqualValues(t, 3, take[*wire.Pong](s.wirePeer).Id, "no credit comes before the topic has a consumer")
	require.NoError(t, sub.SubscribeInitialize(h.topic("a")))
	s.credited()
}

func TestProtocol_AStreamHasOneConnectionOneEpochAndOneSecret(t *testing.T) {
	h := newHouse(t, buffstreams.ManagerConfig{})
	require.NoError(t, h.newSubscriber(t, nil).SubscribeInitialize(h.topic("a")))
	first := greetedPeer(t, h.address).opens(opening(nil)).credited()
	second := greetedPeer(t, h.address).opens(opening(nil)).credited()
	_, failed := first.ended()
	require.False(t, failed)

	refused := func(code wire.Code, change func(*wire.Open)) {
		t.Helper()
		p := greetedPeer(t, h.address)
		p.send(opening(change))
		opened := take[*wire.Opened](p)
		require.Equal(t, code, opened.Code)
		require.NotEmpty(t, opened.Reason)
		p.opens(opening(func(o *wire.Open) { o.Publisher = bytes.Repeat([]byte{0xc3}, 16) })) // it goes on
		p.cut()
	}
	const malformed, zero = "publisher or secret not of 16 bytes, or topic over 1,024", "epoch, stream or base 0"
	for _, f := range []struct {
		row    string
		change func(*wire.Open)
	}{
		{"epoch older than the publisher's newest", func(o *wire.Open) { o.Epoch = 4 }},
		{"secret other than the publisher's first", func(o *wire.Open) { o.Secret = make([]byte, 16) }},
		{malformed, func(o *wire.Open) { o.Secret = []byte("short") }},
		{malformed, func(o *wire.Open) { o.Publisher = nil }},
		{malformed, func(o *wire.Open) { o.Topic = strings.Repeat("x", 1025) }},
		{zero, func(o *wire.Open) { o.Epoch = 0 }},
		{zero, func(o *wire.Open) { o.Stream = 0 }},
		{zero, func(o *wire.Open) { o.Base = 0 }},
	} {
		outcome, code := documentedFault(t, f.row)
		require.Equal(t, "Opened", outcome, f.row)
		refused(code, f.change)
	}
	third := greetedPeer(t, h.address).opens(opening(func(o *wire.Open) { o.Epoch, o.Topic = 6, "b" }))
	_, failed = second.ended() // a newer epoch ends the connections of the older, whatever their topic
	require.False(t, failed)
	third.sync()
}

func TestProtocol_ReceiverEndsAStream(t *testing.T) {
	h := newHouse(t, buffstreams.ManagerConfig{})
	ctx, cancel := context.WithCancel(context.Background())
	sub := h.newSubscriber(t, ephemeral)
	_, err := sub.Subscribe(ctx, h.topic("a"))
	require.NoError(t, err)
	s := greetedPeer(t, h.address).opens(opening(nil)).credited()
	cancel()
	s.until(func() bool { return len(s.rejects) == 1 })
	require.Zero(t, s.rejects[0].Sequence)
	require.Equal(t, wire.Code_CODE_TOPIC_GONE, s.rejects[0].Code)
	s.publish(1, false, envelope(t, "late")) // what crosses is ignored
	s.send(&wire.Release{Handle: s.handle})
	s.send(opening(nil))
	require.Equal(t, wire.Code_CODE_TOPIC_GONE, take[*wire.Opened](s.wirePeer).Code)
	s.sync()
}

// memory is a DedupeStore that knows one stream.
type memory struct{ settled []store.Range }

func (m memory) Load(store.StreamID) (store.StreamState, bool, error) {
	return store.StreamState{Settled: m.settled}, true, nil
}

func (memory) Save(map[store.StreamID]store.StreamState) error { return nil }

func (memory) Forget(store.StreamID) error { return nil }

func TestProtocol_ReceiverThatRemembersWhatItSettled(t *testing.T) {
	h := newHouse(t, buffstreams.ManagerConfig{Acked: buffstreams.AckedConfig{
		Dedupe: memory{settled: []store.Range{{First: 1, Last: 3}, {First: 6, Last: 7}}},
	}})
	messages := subscribe(t, h.newSubscriber(t, nil), h.topic("a"))
	flow := greetedPeer(t, h.address).opens(opening(nil)).credited()
	require.EqualValues(t, 4, flow.opened.Next)
	require.Equal(t, []uint64{1, 3, 6, 7}, flow.opened.Settled)
	flow.publish(4, false, envelope(t, "4"), envelope(t, "5"))
	flow.publish(8, true, envelope(t, "8"))
	for _, payload := range []string{"4", "5", "8"} {
		receivePayload(t, messages, payload).Ack()
	}
	flow.until(func() bool { return flow.next == 9 && flow.settled[4] && flow.settled[5] && flow.settled[8] })
	flow.publish(9, false, envelope(t, "9"))
	receivePayload(t, messages, "9").Ack()

	outcome, documented := documentedFault(t, "sequence at or above next that is settled")
	require.Equal(t, "Failure", outcome)
	again := greetedPeer(t, h.address).opens(opening(func(o *wire.Open) { o.Stream, o.Base = 4, 4 }))
	again.credited().publish(4, false, envelope(t, "4"), envelope(t, "5"), envelope(t, "6"))
	code, failed := again.ended()
	require.True(t, failed)
	require.Equal(t, documented, code)
}
