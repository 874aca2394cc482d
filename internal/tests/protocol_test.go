package tests

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"hash/crc32"
	"io"
	"net"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/internal/wire"
	"github.com/buffstreams/watermill-buffstreams/store"
)

// The peers of this file are written from docs/protocol.md: of the project they share only proto/ with what they test.
// It is one file so that it can be read beside that document: first the peers, then a sender, a receiver, the faults, and
// the document's own bytes.

const (
	protocolDocument = "../../docs/protocol.md"
	leastFrame       = 65_600 // what each side must accept
	trailerSize      = 5
	trailerTag       = 0x7d
)

// wirePeer is one end of a connection in plaintext.
type wirePeer struct {
	t    *testing.T
	conn net.Conn
}

func newWirePeer(t *testing.T, conn net.Conn, err error) *wirePeer {
	t.Helper()
	require.NoError(t, err)
	require.NoError(t, conn.SetDeadline(time.Now().Add(patience)))
	t.Cleanup(func() { _ = conn.Close() })
	return &wirePeer{t: t, conn: conn}
}

// framed puts the length before a payload.
func framed(payload []byte) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(payload))), payload...)
}

// sealed is the frame of a payload with its checksum.
func sealed(payload []byte) []byte {
	sum := crc32.Checksum(payload, crc32.MakeTable(crc32.Castagnoli))
	return framed(binary.LittleEndian.AppendUint32(append(bytes.Clone(payload), trailerTag), sum))
}

// payloadOf encodes a Frame with the given body.
func payloadOf(t testing.TB, body proto.Message) []byte {
	t.Helper()
	f := (&wire.Frame{}).ProtoReflect()
	kinds := f.Descriptor().Oneofs().ByName("body").Fields()
	for i := range kinds.Len() {
		if kinds.Get(i).Message().FullName() == body.ProtoReflect().Descriptor().FullName() {
			f.Set(kinds.Get(i), protoreflect.ValueOfMessage(body.ProtoReflect()))
		}
	}
	payload, err := proto.Marshal(f.Interface())
	require.NoError(t, err)
	require.NotEmpty(t, payload, "%T is no frame", body)
	return payload
}

func (p *wirePeer) write(frame []byte) {
	p.t.Helper()
	_, err := p.conn.Write(frame)
	require.NoError(p.t, err)
}

func (p *wirePeer) send(body proto.Message) {
	p.t.Helper()
	p.write(sealed(payloadOf(p.t, body)))
}

// readFrame reads one frame, header included.
func (p *wirePeer) readFrame() ([]byte, error) {
	frame := make([]byte, 4)
	if _, err := io.ReadFull(p.conn, frame); err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint32(frame)
	require.LessOrEqual(p.t, size, uint32(leastFrame))
	frame = append(frame, make([]byte, size)...)
	_, err := io.ReadFull(p.conn, frame[4:])
	return frame, err
}

// decodeFrame checks a frame's length and checksum and returns its body.
func decodeFrame(t testing.TB, frame []byte) proto.Message {
	t.Helper()
	require.GreaterOrEqual(t, len(frame), 4+trailerSize)
	require.Equal(t, len(frame)-4, int(binary.BigEndian.Uint32(frame)))
	end := len(frame) - trailerSize
	require.Equal(t, sealed(frame[4:end]), frame, "checksum")
	var f wire.Frame
	require.NoError(t, proto.Unmarshal(frame[4:end], &f))
	m := f.ProtoReflect()
	kind := m.WhichOneof(m.Descriptor().Oneofs().ByName("body"))
	require.NotNil(t, kind, "a frame without a body")
	return m.Get(kind).Message().Interface()
}

// take reads the next frame, which has to be a T.
func take[T proto.Message](p *wirePeer) T {
	p.t.Helper()
	frame, err := p.readFrame()
	require.NoError(p.t, err)
	body, ok := decodeFrame(p.t, frame).(T)
	require.True(p.t, ok, "not a %T: %v", *new(T), decodeFrame(p.t, frame))
	return body
}

// ended reads until the connection ends, and returns the code of the Failure before that, if there was one.
func (p *wirePeer) ended() (code wire.Code, failed bool) {
	p.t.Helper()
	for {
		frame, err := p.readFrame()
		var timeout net.Error
		if errors.As(err, &timeout) {
			require.False(p.t, timeout.Timeout(), "the connection goes on")
		}
		if err != nil {
			return code, failed
		}
		if f, ok := decodeFrame(p.t, frame).(*wire.Failure); ok && !failed { // what is behind it is void
			code, failed = f.Code, true
		}
	}
}

// sync returns when the other side has taken every frame that was sent to it. What it sends meanwhile is dropped.
func (p *wirePeer) sync() {
	p.t.Helper()
	p.send(&wire.Ping{Id: 77})
	for {
		frame, err := p.readFrame()
		require.NoError(p.t, err)
		if pong, ok := decodeFrame(p.t, frame).(*wire.Pong); ok && pong.Id == 77 {
			return
		}
	}
}

// dialPeer connects to a listener as a sender.
func dialPeer(t *testing.T, address string) *wirePeer {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	return newWirePeer(t, conn, err)
}

func greetedPeer(t *testing.T, address string) *wirePeer {
	t.Helper()
	p := dialPeer(t, address)
	p.send(&wire.Hello{Version: 1, MaxFrame: leastFrame, Agent: "script"})
	welcome := take[*wire.Welcome](p)
	require.EqualValues(t, 1, welcome.Version)
	require.EqualValues(t, 1<<20, welcome.MaxMessage)
	require.EqualValues(t, 1<<20+64, welcome.MaxFrame)
	return p
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

// Flags of a Publish.
const (
	flagGap    = 1
	flagPrompt = 2
)

func flags(gap bool) uint32 {
	if gap {
		return flagGap | flagPrompt
	}
	return flagPrompt
}

func (s *script) publish(first uint64, gap bool, messages ...[]byte) {
	s.t.Helper()
	s.send(&wire.Publish{Handle: s.handle, First: first, Flags: flags(gap), Messages: messages})
}

// cut ends the connection without a word.
func (p *wirePeer) cut() { require.NoError(p.t, p.conn.Close()) }

func envelope(t testing.TB, payload string) []byte {
	t.Helper()
	data, err := proto.Marshal(&wire.Envelope{Uuid: "id of " + payload, Payload: []byte(payload)})
	require.NoError(t, err)
	return data
}

func receivePayload(t *testing.T, messages <-chan *message.Message, payload string) *message.Message {
	t.Helper()
	msg := receive(t, messages)
	require.Equal(t, payload, string(msg.Payload))
	require.Equal(t, "id of "+payload, msg.UUID)
	return msg
}

func TestProtocolSenderWrittenFromTheDocument(t *testing.T) {
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

func TestProtocolCreditIsReturnedUnlessAGrantCrossed(t *testing.T) {
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

func TestProtocolCreditWaitsForTheTopic(t *testing.T) {
	h := newHouse(t, buffstreams.ManagerConfig{})
	sub := h.newSubscriber(t, nil)
	require.NoError(t, sub.SubscribeInitialize(h.topic("another")))
	s := greetedPeer(t, h.address).opens(opening(nil))
	s.send(&wire.Ping{Id: 3})
	require.EqualValues(t, 3, take[*wire.Pong](s.wirePeer).Id, "no credit comes before the topic has a consumer")
	require.NoError(t, sub.SubscribeInitialize(h.topic("a")))
	s.credited()
}

func TestProtocolAStreamHasOneConnectionOneEpochAndOneSecret(t *testing.T) {
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

func TestProtocolReceiverEndsAStream(t *testing.T) {
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

func TestProtocolSenderTakesTheEndOfAStream(t *testing.T) {
	ln, topic := listenPeer(t)
	pub := senderOf(t, buffstreams.AckedConfig{}, buffstreams.ConfirmHandled)
	result := later(func() error { return pub.Publish(topic, newMessages(2)...) })
	d := acceptDesk(t, ln)
	d.grant(1, 1000)
	d.collect(1)
	d.wanted(1)
	d.send(&wire.Reject{Handle: d.open.Handle, Code: wire.Code_CODE_TOPIC_GONE})
	require.Equal(t, d.open.Handle, take[*wire.Release](d.wirePeer).Handle)
	require.ErrorIs(t, requireResult(t, result), buffstreams.ErrTopicGone)
	again := later(func() error { return pub.Publish(topic, newMessage("again")) })
	open := take[*wire.Open](d.wirePeer)
	require.NotEqual(t, d.open.Stream, open.Stream)
	require.NotEqual(t, d.open.Handle, open.Handle)
	d.send(&wire.Opened{Handle: open.Handle, Code: wire.Code_CODE_FORBIDDEN})
	require.ErrorIs(t, requireResult(t, again), buffstreams.ErrForbidden)
}

// memory is a DedupeStore that knows one stream.
type memory struct{ settled []store.Range }

func (m memory) Load(store.StreamID) (store.StreamState, bool, error) {
	return store.StreamState{Settled: m.settled}, true, nil
}
func (memory) Save(map[store.StreamID]store.StreamState) error { return nil }
func (memory) Forget(store.StreamID) error                     { return nil }

func TestProtocolReceiverThatRemembersWhatItSettled(t *testing.T) {
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

// listenPeer is where a script waits for senders.
func listenPeer(t *testing.T) (ln net.Listener, topic string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = ln.Close() })
	return ln, ln.Addr().String() + "/a"
}

func senderOf(t *testing.T, acked buffstreams.AckedConfig, confirm buffstreams.Confirm) *buffstreams.Publisher {
	t.Helper()
	pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{
		Confirm: confirm, CloseTimeout: time.Millisecond, ManagerConfig: buffstreams.ManagerConfig{Acked: quick(acked)},
	}, nil)
	require.NoError(t, err)
	t.Cleanup(func() { _ = pub.Close() })
	return pub
}

// desk is the receiver's side of one stream on one connection, with its books.
type desk struct {
	*wirePeer
	open            *wire.Open
	messages, bytes uint64 // granted
	used, usedBytes uint64
	next            uint64
}

func acceptPeer(t *testing.T, ln net.Listener) *wirePeer {
	t.Helper()
	conn, err := ln.Accept()
	p := newWirePeer(t, conn, err)
	hello := take[*wire.Hello](p)
	require.EqualValues(t, 1, hello.Version)
	require.GreaterOrEqual(t, hello.MaxFrame, uint64(leastFrame))
	p.send(&wire.Welcome{Version: 1, MaxFrame: leastFrame, MaxMessage: 60_000})
	return p
}

// acceptDesk takes a connection and its first stream, of which it remembers nothing.
func acceptDesk(t *testing.T, ln net.Listener) *desk {
	t.Helper()
	p := acceptPeer(t, ln)
	open := take[*wire.Open](p)
	require.Len(t, open.Publisher, 16)
	require.Len(t, open.Secret, 16)
	require.Equal(t, "a", open.Topic)
	require.NotZero(t, open.Base)
	require.NotZero(t, open.WantMessages)
	require.LessOrEqual(t, open.LeastBytes, open.WantBytes)
	p.send(&wire.Opened{Handle: open.Handle, Next: open.Base})
	return &desk{wirePeer: p, open: open, next: open.Base}
}

// encodedSize is what a message takes of the credit: a tag, its length, itself.
func encodedSize(msg []byte) uint64 {
	return uint64(1 + len(binary.AppendUvarint(nil, uint64(len(msg)))) + len(msg))
}

func (d *desk) grant(messages, size uint64) {
	d.t.Helper()
	d.messages, d.bytes = messages, size
	d.send(&wire.Ack{Handle: d.open.Handle, CreditMessages: messages, CreditBytes: size})
}

// collect takes Publish frames until n messages have come, and checks them against the books.
func (d *desk) collect(n int) (messages [][]byte) {
	d.t.Helper()
	for len(messages) < n {
		f := take[*wire.Publish](d.wirePeer)
		require.Equal(d.t, d.open.Handle, f.Handle)
		require.Equal(d.t, f.First > d.next, f.Flags&flagGap != 0, "gap flag at %d, expected %d", f.First, d.next)
		require.GreaterOrEqual(d.t, f.First, d.next)
		for _, msg := range f.Messages {
			d.used++
			d.usedBytes += encodedSize(msg)
		}
		require.LessOrEqual(d.t, d.used, d.messages, "messages beyond the credit")
		require.LessOrEqual(d.t, d.usedBytes, d.bytes, "bytes beyond the credit")
		messages = append(messages, f.Messages...)
		d.next = f.First + uint64(len(f.Messages))
	}
	require.Len(d.t, messages, n)
	return messages
}

// wanted takes a Want, which has to return all credit that is not used.
func (d *desk) wanted(messages uint64) *wire.Want {
	d.t.Helper()
	want := take[*wire.Want](d.wirePeer)
	require.Equal(d.t, d.open.Handle, want.Handle)
	require.Equal(d.t, d.messages, want.SeenMessages)
	require.Equal(d.t, messages, want.Messages)
	d.messages, d.bytes = d.used, d.usedBytes
	return want
}

func TestProtocolReceiverWrittenFromTheDocument(t *testing.T) {
	ln, topic := listenPeer(t)
	manager, err := buffstreams.NewManager(buffstreams.ManagerConfig{Acked: quick(buffstreams.AckedConfig{})})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, manager.Close()) })
	h := &house{manager: manager, publisher: buffstreams.PublisherConfig{Manager: manager, CloseTimeout: time.Millisecond}}
	pub := h.newPublisher(t, func(c *buffstreams.PublisherConfig) { c.Confirm = buffstreams.ConfirmHandled })
	msgs := newMessages(5)
	result := later(func() error { return pub.Publish(topic, msgs...) })

	d := acceptDesk(t, ln)
	require.EqualValues(t, 1, d.open.Base)
	require.EqualValues(t, 5, d.open.WantMessages)
	d.grant(2, d.open.WantBytes) // messages run out first
	sent := d.collect(2)
	want := d.wanted(3)
	d.grant(5, d.usedBytes+want.LeastBytes) // then bytes
	sent = append(sent, d.collect(1)...)
	require.Equal(t, want.LeastBytes, encodedSize(sent[2]))
	want = d.wanted(2)
	d.grant(4, d.usedBytes+want.Bytes)
	sent = append(sent, d.collect(1)...)
	d.wanted(1)
	d.grant(100, 10_000)
	sent = append(sent, d.collect(1)...)
	for i, data := range sent {
		var e wire.Envelope
		require.NoError(t, proto.Unmarshal(data, &e))
		require.Equal(t, msgs[i].UUID, e.Uuid)
		require.Equal(t, string(msgs[i].Payload), string(e.Payload))
	}
	d.wanted(0) // a stream that is idle gives its credit back

	// Out of order, and 1, 4 and 5 stay open.
	d.send(&wire.Ack{Handle: d.open.Handle, Next: 6, Settled: []uint64{2, 3}})
	d.send(&wire.Goaway{Reason: "closing"})
	d.send(&wire.Ping{Id: 1})
	require.EqualValues(t, 1, take[*wire.Pong](d.wirePeer).Id)
	async := h.newPublisher(t, func(c *buffstreams.PublisherConfig) { c.Confirm = buffstreams.ConfirmEnqueued })
	require.NoError(t, async.Publish(topic, newMessage("later")))
	d.grant(100, 10_000)
	d.send(&wire.Ping{Id: 2})
	require.EqualValues(t, 2, take[*wire.Pong](d.wirePeer).Id, "nothing new comes after a Goaway")
	d.cut()

	// A receiver that remembers nothing gets everything that is not settled, and only that.
	d = acceptDesk(t, ln)
	require.EqualValues(t, 1, d.open.Base)
	d.grant(4, 10_000)
	require.Equal(t, sent[:1], d.collect(1))
	require.EqualValues(t, 2, d.next)
	require.Equal(t, sent[3:], d.collect(3)[:2])
	require.EqualValues(t, 7, d.next)
	d.send(&wire.Ack{Handle: d.open.Handle, Next: 7, Settled: []uint64{1, 1, 4, 4}})
	d.send(&wire.Reject{Handle: d.open.Handle, Sequence: 5, Code: wire.Code_CODE_FAILED, Reason: "no"})
	seen := take[*wire.RejectSeen](d.wirePeer)
	require.EqualValues(t, 5, seen.Sequence)
	require.Equal(t, d.open.Handle, seen.Handle)
	var refused *buffstreams.PeerError
	require.ErrorAs(t, requireResult(t, result), &refused)
	require.ErrorIs(t, refused, buffstreams.ErrHandlingFailed)
	d.send(&wire.Reject{Handle: d.open.Handle, Sequence: 5, Code: wire.Code_CODE_FAILED}) // as if it was not seen
	require.EqualValues(t, 5, take[*wire.RejectSeen](d.wirePeer).Sequence)
	d.send(&wire.Ack{Handle: d.open.Handle, Settled: []uint64{6, 6}})
	d.send(&wire.Ping{Id: 3})
	require.EqualValues(t, 3, take[*wire.Pong](d.wirePeer).Id)
	require.NoError(t, async.Close())
}

func TestProtocolSenderPingsASilentReceiver(t *testing.T) {
	ln, topic := listenPeer(t)
	pub := senderOf(t, buffstreams.AckedConfig{PingAfter: 100 * time.Millisecond, DeadAfter: time.Hour}, buffstreams.ConfirmEnqueued)
	require.NoError(t, pub.Publish(topic, newMessage("x")))
	d := acceptDesk(t, ln)
	for range 2 {
		d.send(&wire.Pong{Id: take[*wire.Ping](d.wirePeer).Id})
	}
}

// documentedFault finds a row of the document's tables of faults: what is done about it, and with which code.
func documentedFault(t *testing.T, row string) (outcome string, code wire.Code) {
	t.Helper()
	document, err := os.ReadFile(protocolDocument)
	require.NoError(t, err)
	found := regexp.MustCompile(`(?m)^\| ` + regexp.QuoteMeta(row) + ` \| (\w+)(?: (\w+))?`).FindStringSubmatch(string(document))
	require.NotNil(t, found, "%s does not say what happens: %s", protocolDocument, row)
	if found[2] != "" {
		number, known := wire.Code_value["CODE_"+found[2]]
		require.True(t, known, found[2])
		code = wire.Code(number)
	}
	return found[1], code
}

// fault is what a sender can do wrong, by its row in the document. It gets a new connection.
type fault struct {
	row string
	do  func(p *wirePeer, address string)
}

// publishOf is the frame of a Publish with the given body.
func publishOf(body ...byte) []byte {
	return sealed(append([]byte{0x2a, byte(len(body))}, body...))
}

// faults need a listener with one topic, "a", that has a consumer.
func faults(t *testing.T) []fault { //nolint:funlen // a table
	m := envelope(t, "x")
	streams := uint64(0) // each gets one of its own
	flipped := func(body proto.Message) []byte {
		frame := sealed(payloadOf(t, body))
		frame[len(frame)-1] ^= 1
		return frame
	}
	hello := func(padding int) []byte {
		return sealed(payloadOf(t, &wire.Hello{Version: 1, MaxFrame: leastFrame, Token: make([]byte, padding)}))
	}
	const (
		twoBodies  = "frame with two bodies, or with anything else beside its body and the last field's checksum"
		openHandle = "Open with a handle that is open, or with handle 0"
	)
	full := 4096 - (len(hello(1000)) - 4 - 1000)
	raw := func(frame []byte) func(*wirePeer, string) {
		return func(p *wirePeer, _ string) { p.write(frame) }
	}
	greeted := func(frames ...[]byte) func(*wirePeer, string) {
		return func(p *wirePeer, _ string) {
			p.write(hello(full - 1)) // the largest there may be
			take[*wire.Welcome](p)
			p.write(bytes.Join(frames, nil))
		}
	}
	opened := func(publishes ...*wire.Publish) func(*wirePeer, string) {
		return func(p *wirePeer, _ string) {
			p.write(hello(0))
			take[*wire.Welcome](p)
			streams++
			s := p.opens(opening(func(o *wire.Open) { o.Stream = streams })).credited()
			for _, f := range publishes {
				f.Handle = s.handle
				s.send(f)
			}
		}
	}
	many := func(n int) [][]byte {
		out := make([][]byte, n)
		for i := range out {
			out[i] = m
		}
		return out
	}
	frame := func(body proto.Message) []byte { return sealed(payloadOf(t, body)) }
	return []fault{
		{"frame over 4,096 bytes before the Welcome", raw(hello(full + 1))},
		{"frame over max_frame", greeted(binary.BigEndian.AppendUint32(nil, 1<<20+65))},
		{"checksum wrong, or absent without TLS", greeted(flipped(&wire.Ping{}))},
		{"checksum wrong, or absent without TLS", greeted(framed(payloadOf(t, &wire.Ping{Id: 1})))},
		{"checksum wrong, or absent without TLS", raw(flipped(&wire.Hello{Version: 1, MaxFrame: leastFrame}))},
		{"first frame is no Hello", raw(frame(&wire.Ping{}))},
		{"Hello.version below 1", raw(frame(&wire.Hello{MaxFrame: leastFrame}))},
		{"Hello.max_frame below 65,600", raw(frame(&wire.Hello{Version: 1, MaxFrame: leastFrame - 1}))},
		{"frame that only the other side sends, or a second Hello", greeted(hello(0))},
		{"frame that only the other side sends, or a second Hello", greeted(frame(&wire.Welcome{Version: 1}))},
		{"frame that only the other side sends, or a second Hello", greeted(frame(&wire.Ack{Handle: 7, Next: 1}))},
		{"frame without a body, with an unknown one, or malformed", greeted(sealed(nil))},
		{"frame without a body, with an unknown one, or malformed", greeted(sealed([]byte{0x82, 0x02, 0x02, 0x08, 0x01}))},
		{"frame without a body, with an unknown one, or malformed", greeted(sealed([]byte{0xff, 0xff}))},
		{"Publish, Want or RejectSeen with a handle that is not open", greeted(frame(&wire.Publish{Handle: 7, First: 1, Messages: many(1)}))},
		{"Publish, Want or RejectSeen with a handle that is not open", greeted(frame(&wire.Want{Handle: 7}))},
		{"Publish, Want or RejectSeen with a handle that is not open", greeted(frame(&wire.RejectSeen{Handle: 7, Sequence: 1}))},
		{twoBodies, greeted(sealed(append(payloadOf(t, &wire.Ping{Id: 1}), payloadOf(t, &wire.Ping{Id: 2})...)))},
		{twoBodies, greeted(sealed(append(payloadOf(t, &wire.Ping{Id: 1}), 0x82, 1, 0)))},
		{twoBodies, greeted(sealed(append([]byte{trailerTag, 0, 0, 0, 0}, payloadOf(t, &wire.Ping{Id: 1})...)))},
		{openHandle, greeted(frame(opening(func(o *wire.Open) { o.Handle = 0 })))},
		{openHandle, func(p *wirePeer, address string) {
			opened()(p, address)
			p.send(opening(func(o *wire.Open) { o.Stream = 1 << 40 }))
		}},
		{"Publish beyond the credit", func(p *wirePeer, address string) { // in messages
			opened(&wire.Publish{First: 1, Messages: many(3)})(p, address)
			p.send(&wire.Want{Handle: 7, SeenMessages: 1 << 40}) // void
			p.send(&wire.Publish{Handle: 7, First: 4, Messages: many(4000)})
		}},
		{"Publish beyond the credit", opened(&wire.Publish{First: 1, Messages: [][]byte{make([]byte, 1<<20-1)}})}, // in bytes
		{"sequences missing without the gap flag", opened(&wire.Publish{First: 1, Messages: many(1)}, &wire.Publish{First: 3, Messages: many(1)})},
		{"sequence 0 or beyond 2^64−2", opened(&wire.Publish{First: 0, Messages: many(1)})},
		{"sequence 0 or beyond 2^64−2", opened(&wire.Publish{First: 1<<64 - 1, Flags: flagGap, Messages: many(1)})},
		{"Publish of no message or of more than 4,096", opened(&wire.Publish{First: 1})},
		{"Publish of no message or of more than 4,096", opened(&wire.Publish{First: 1, Messages: make([][]byte, 4097)})},
		{"Publish whose messages are not its last fields", greeted(publishOf(0x22, 0x01, 'x', 0x08, 0x07))},
	}
}

func TestProtocolFaultsEndOnlyTheirConnection(t *testing.T) {
	var dials atomic.Int32
	h := newHouse(t, buffstreams.ManagerConfig{Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		dials.Add(1)
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}})
	sub := h.newSubscriber(t, nil)
	require.NoError(t, sub.SubscribeInitialize(h.topic("a")))
	others := subscribe(t, sub, h.topic("another"))
	pub := h.newPublisher(t, nil)
	for _, f := range faults(t) {
		t.Run(f.row, func(t *testing.T) {
			outcome, code := documentedFault(t, f.row)
			p := dialPeer(t, h.address)
			f.do(p, h.address)
			got, failed := p.ended()
			require.Equal(t, outcome == "Failure", failed)
			require.Equal(t, code, got)
			require.NoError(t, pub.Publish(h.topic("another"), newMessage(f.row)))
			require.Equal(t, []string{f.row}, receiveAcked(t, others, 1))
		})
	}
	require.EqualValues(t, 1, dials.Load(), "the other connection was cut")
}

func TestProtocolFaultsThatTheConnectionSurvives(t *testing.T) {
	h := newHouse(t, buffstreams.ManagerConfig{Acked: buffstreams.AckedConfig{MaxMessageSize: 1000}})
	messages := subscribe(t, h.newSubscriber(t, nil), h.topic("a"))
	p := dialPeer(t, h.address)
	p.send(&wire.Hello{Version: 2, MaxFrame: leastFrame}) // of the future: it is answered with the version that both know
	require.EqualValues(t, 1, take[*wire.Welcome](p).Version)
	s := p.opens(opening(func(o *wire.Open) { o.WantBytes = 5000 }))
	s.until(func() bool { return s.bytes >= 5000 })

	outcome, code := documentedFault(t, "message over max_message in a frame within max_frame")
	require.Equal(t, "Reject", outcome)
	s.publish(1, false, envelope(t, "1"), make([]byte, 1001), envelope(t, "3"))
	receivePayload(t, messages, "1").Ack()
	receivePayload(t, messages, "3").Ack()
	s.until(func() bool { return len(s.rejects) > 0 && s.settled[1] && s.settled[3] })
	require.Equal(t, code, s.rejects[0].Code)
	require.EqualValues(t, 2, s.rejects[0].Sequence)

	for row, body := range map[string]proto.Message{
		"Release of a stream that is not open or not settled": &wire.Release{Handle: s.handle}, // 2 is not confirmed
		"RejectSeen of a sequence that was not rejected":      &wire.RejectSeen{Handle: s.handle, Sequence: 1},
		"Want with another seen_messages than the last grant": &wire.Want{Handle: s.handle, SeenMessages: 1, Messages: 1},
		"Pong that nothing asked for":                         &wire.Pong{Id: 9},
	} {
		outcome, _ := documentedFault(t, row)
		require.Equal(t, "ignored", outcome)
		s.send(body)
	}
	s.publish(4, false, envelope(t, "4"))
	receivePayload(t, messages, "4").Ack()
	s.until(func() bool { return s.settled[4] })
}

// documentBlocks are the contents of the document's fenced blocks of one kind.
func documentBlocks(t *testing.T, kind string) []string {
	t.Helper()
	document, err := os.ReadFile(protocolDocument)
	require.NoError(t, err)
	var blocks []string
	for _, found := range regexp.MustCompile("(?s)```"+kind+"\n(.*?)```").FindAllStringSubmatch(string(document), -1) {
		blocks = append(blocks, found[1])
	}
	require.NotEmpty(t, blocks, kind)
	return blocks
}

// documented is a frame that the document spells out.
type documented struct {
	sender bool
	name   string
	bytes  []byte
}

// documentedFrames reads lines of "side: Name ...", each followed by the frame in hex.
func documentedFrames(t *testing.T, kind string) (frames []documented) {
	t.Helper()
	for line := range strings.Lines(documentBlocks(t, kind)[0]) {
		if side, rest, ok := strings.Cut(line, ":"); ok {
			frames = append(frames, documented{sender: side == "sender", name: strings.TrimSpace(strings.SplitN(rest, "{", 2)[0])})
			continue
		}
		data, err := hex.DecodeString(strings.Join(strings.Fields(line), ""))
		require.NoError(t, err)
		f := &frames[len(frames)-1]
		f.bytes = append(f.bytes, data...)
	}
	for _, f := range frames {
		body := decodeFrame(t, f.bytes)
		require.EqualValues(t, f.name, body.ProtoReflect().Descriptor().Name())
	}
	return frames
}

func TestProtocolDocumentedSessionWithTheListener(t *testing.T) {
	h := newHouse(t, buffstreams.ManagerConfig{})
	messages := subscribe(t, h.newSubscriber(t, nil), h.topic("orders"))
	p := dialPeer(t, h.address)
	for i, f := range documentedFrames(t, "session") {
		if f.sender {
			p.write(f.bytes)
			continue
		}
		got, err := p.readFrame()
		require.NoError(t, err)
		require.Equal(t, hex.EncodeToString(f.bytes), hex.EncodeToString(got), "frame %d, %s", i+1, f.name)
		if ack, ok := decodeFrame(t, got).(*wire.Ack); ok && ack.Next == 2 {
			msg := receive(t, messages)
			require.Equal(t, "m-1", msg.UUID)
			require.Equal(t, "hello", string(msg.Payload))
			msg.Ack()
		}
	}

	closed := later(func() error {
		return h.manager.CloseListener(context.Background(), h.address)
	})
	require.NotEmpty(t, take[*wire.Goaway](p).Reason)
	require.EqualValues(t, 1, take[*wire.Ping](p).Id)
	_, err := p.readFrame()
	require.Error(t, err)
	require.NoError(t, requireResult(t, closed))
}

func TestProtocolDocumentedSessionWithThePublisher(t *testing.T) {
	ln, address := listenPeer(t)
	pub := senderOf(t, buffstreams.AckedConfig{}, buffstreams.ConfirmHandled)
	result := later(func() error {
		return pub.Publish(strings.TrimSuffix(address, "a")+"orders", message.NewMessage("m-1", []byte("hello")))
	})
	conn, err := ln.Accept()
	p := newWirePeer(t, conn, err)
	for i, f := range documentedFrames(t, "session") {
		if !f.sender {
			p.write(f.bytes)
			continue
		}
		got, err := p.readFrame()
		require.NoError(t, err)
		if open, ok := decodeFrame(t, got).(*wire.Open); ok { // random: the document's stand in for them
			for _, field := range [][]byte{open.Publisher, open.Secret} {
				at := bytes.Index(got, field)
				require.Positive(t, at)
				copy(got[at:at+16], f.bytes[at:at+16])
			}
			got = sealed(got[4 : len(got)-trailerSize])
		}
		require.Equal(t, hex.EncodeToString(f.bytes), hex.EncodeToString(got), "frame %d, %s", i+1, f.name)
	}
	require.NoError(t, requireResult(t, result))
}

func TestProtocolDocumentedChecksum(t *testing.T) {
	example := documentedFrames(t, "checksum")
	require.Len(t, example, 1)
	require.Equal(t, sealed(payloadOf(t, &wire.Ping{Id: 7})), example[0].bytes)
	require.EqualValues(t, 0xe3069283, crc32.Checksum([]byte("123456789"), crc32.MakeTable(crc32.Castagnoli)))
}
