package session

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/buffstreams/watermill-buffstreams/framing"
	"github.com/buffstreams/watermill-buffstreams/internal/wire"
)

func encoder(t testing.TB, checksum bool) Encoder {
	t.Helper()
	codec, err := framing.NewFixed(4, binary.BigEndian, MaxFrame(1<<20))
	require.NoError(t, err)
	return Encoder{Codec: codec, Checksum: checksum}
}

// payloads takes the headers off a run of frames.
func payloads(t testing.TB, e Encoder, stream []byte) (out [][]byte) {
	for len(stream) > 0 {
		length, width, err := e.Codec.ParseHeader(stream)
		if err != nil || width+length > len(stream) {
			t.Fatalf("a frame of %d bytes in %d: %v", length, len(stream), err)
		}
		out = append(out, stream[width:width+length])
		stream = stream[width+length:]
	}
	return out
}

func payload(t testing.TB, e Encoder, frame []byte) []byte {
	p := payloads(t, e, frame)
	if len(p) != 1 {
		t.Fatalf("%d frames instead of one", len(p))
	}
	return p[0]
}

func control(t testing.TB, e Encoder, f *wire.Frame) []byte {
	t.Helper()
	out, err := e.AppendControl(nil, f)
	require.NoError(t, err)
	return payload(t, e, out)
}

// everyControl is a frame of each type, all fields set, but for Publish and Ack, which have encoders of their own.
func everyControl() []*wire.Frame {
	id := bytes.Repeat([]byte{7}, 16)
	return []*wire.Frame{
		{Body: &wire.Frame_Hello{Hello: &wire.Hello{Version: 1, MaxFrame: 1 << 20, Token: []byte("token"), Agent: "agent"}}},
		{Body: &wire.Frame_Welcome{Welcome: &wire.Welcome{Version: 1, MaxFrame: 1 << 20, MaxMessage: 1 << 19}}},
		{Body: &wire.Frame_Open{Open: &wire.Open{
			Handle: 1, Publisher: id, Epoch: 2, Secret: id, Stream: 3, Topic: "topic", Base: 300,
			WantMessages: 5, WantBytes: 6, LeastBytes: 7,
		}}},
		{Body: &wire.Frame_Opened{Opened: &wire.Opened{
			Handle: 1, Code: wire.Code_CODE_LIMIT, Reason: "reason", Next: 9, Settled: []uint64{1, 2, 400, 500},
		}}},
		{Body: &wire.Frame_Want{Want: &wire.Want{Handle: 1, Messages: 2, Bytes: 3, LeastBytes: 4, SeenMessages: 5}}},
		{Body: &wire.Frame_Reject{Reject: &wire.Reject{Handle: 1, Sequence: 2, Code: wire.Code_CODE_FAILED, Reason: "no"}}},
		{Body: &wire.Frame_RejectSeen{RejectSeen: &wire.RejectSeen{Handle: 1, Sequence: 2}}},
		{Body: &wire.Frame_Ping{Ping: &wire.Ping{Id: 1}}},
		{Body: &wire.Frame_Pong{Pong: &wire.Pong{Id: 1}}},
		{Body: &wire.Frame_Goaway{Goaway: &wire.Goaway{Reason: "bye"}}},
		{Body: &wire.Frame_Failure{Failure: &wire.Failure{Code: wire.Code_CODE_PROTOCOL, Reason: "why"}}},
		{Body: &wire.Frame_Release{Release: &wire.Release{Handle: 1}}},
	}
}

var publishes = []*wire.Publish{
	{Handle: 1, First: 1, Messages: [][]byte{[]byte("m")}},
	{Handle: 1, First: 1, Flags: flagGap, Messages: [][]byte{{}, []byte("m"), {}}},
	{Handle: 1 << 63, First: ^uint64(0) - 2, Messages: [][]byte{pattern(127), pattern(128), pattern(16383), pattern(16384)}},
	{Handle: 300, First: 70000, Flags: flagGap | flagAckNow, Messages: [][]byte{pattern(70000)}},
	{Handle: 2, First: 7, Flags: flagAckNow, Messages: [][]byte{pattern(5)}},
	{First: 5, Messages: [][]byte{pattern(5)}}, // absent fields are zero
}

var acks = []*wire.Ack{
	{},
	{Handle: 1, Next: 2},
	{Handle: 1, Settled: []uint64{1, 1}},
	{Handle: 1 << 40, Next: 1 << 63, Settled: []uint64{1, 300, 302, ^uint64(0)}, CreditMessages: 5, CreditBytes: 6},
	{Handle: 1, CreditMessages: 1, CreditBytes: 1 << 50},
}

func segmentOf(p *wire.Publish) Segment {
	return Segment{Handle: p.Handle, First: p.First, Gap: p.Flags&flagGap != 0, AckNow: p.Flags&flagAckNow != 0, Body: body(p.Messages...)}
}

func flagsOf(p *PublishFrame) (flags uint32) {
	if p.Gap {
		flags |= flagGap
	}
	if p.AckNow {
		flags |= flagAckNow
	}
	return flags
}

func ackOf(a *wire.Ack) AckFrame {
	return AckFrame{Handle: a.Handle, Next: a.Next, Settled: a.Settled, Messages: a.CreditMessages, Bytes: a.CreditBytes}
}

func requirePublish(t *testing.T, want *wire.Publish, payload []byte) {
	t.Helper()
	got, err := Decode(payload)
	require.NoError(t, err)
	p, ok := got.(*PublishFrame)
	require.True(t, ok, "%T", got)
	require.Equal(t, []any{want.Handle, want.First, want.Flags & (flagGap | flagAckNow)}, []any{p.Handle, p.First, flagsOf(p)})
	require.Len(t, p.Messages, len(want.Messages))
	size := 0
	for i, m := range want.Messages {
		require.True(t, bytes.Equal(m, p.Messages[i]), "message %d", i)
		require.Equal(t, len(p.Messages[i]), cap(p.Messages[i]), "an append must not reach the next message")
		size += EncodedSize(len(m))
	}
	require.Equal(t, size, p.Bytes)
}

func requireAck(t *testing.T, want *wire.Ack, payload []byte) {
	t.Helper()
	got, err := Decode(payload)
	require.NoError(t, err)
	expected := ackOf(want)
	require.Equal(t, &expected, got)
}

func TestEncoder_AgreesWithGeneratedCode(t *testing.T) {
	for _, checksum := range []bool{false, true} {
		e := encoder(t, checksum)
		generated := func(frame []byte) *wire.Frame {
			p := payload(t, e, frame)
			var f wire.Frame
			require.NoError(t, proto.Unmarshal(p, &f), "the whole payload is a Frame, its checksum a field")
			require.Equal(t, checksum, f.Crc32C != 0)
			opened, err := e.Verify(p)
			require.NoError(t, err)
			require.Len(t, opened, len(p)-e.trailerSize())
			return &f
		}
		for _, p := range publishes {
			out, err := e.AppendPublish(nil, segmentOf(p))
			require.NoError(t, err)
			require.True(t, proto.Equal(p, generated(out).GetPublish()))
		}
		for _, a := range acks {
			out, err := e.AppendAck(nil, ackOf(a))
			require.NoError(t, err)
			require.True(t, proto.Equal(a, generated(out).GetAck()))
		}
		for _, c := range everyControl() {
			out, err := e.AppendControl(nil, c)
			require.NoError(t, err)
			got := generated(out)
			got.Crc32C = 0
			require.True(t, proto.Equal(c, got))
		}
	}
}

func TestDecode_AgreesWithGeneratedCode(t *testing.T) {
	marshal := func(f *wire.Frame) []byte {
		out, err := proto.MarshalOptions{Deterministic: true}.Marshal(f)
		require.NoError(t, err)
		return out
	}
	for _, p := range publishes {
		payload := marshal(&wire.Frame{Body: &wire.Frame_Publish{Publish: p}})
		require.True(t, IsPublish(payload))
		requirePublish(t, p, payload)
	}
	for _, a := range acks {
		payload := marshal(&wire.Frame{Body: &wire.Frame_Ack{Ack: a}})
		require.False(t, IsPublish(payload))
		requireAck(t, a, payload)
	}
	for _, c := range everyControl() {
		got, err := Decode(marshal(c))
		require.NoError(t, err)
		inner := c.ProtoReflect().Get(c.ProtoReflect().WhichOneof(c.ProtoReflect().Descriptor().Oneofs().Get(0)))
		require.True(t, proto.Equal(inner.Message().Interface(), got.(proto.Message)), "%T", got)
	}
}

// A peer may write a repeated number as fields of their own; decoders of proto3 must take both forms.
func TestDecode_AckTakesRangesThatAreNotPacked(t *testing.T) {
	inner := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), 9)
	for _, v := range []uint64{1, 5, 7, 7} {
		inner = protowire.AppendVarint(protowire.AppendTag(inner, 3, protowire.VarintType), v)
	}
	payload := protowire.AppendBytes([]byte{ackTag}, inner)
	var f wire.Frame
	require.NoError(t, proto.Unmarshal(payload, &f))
	requireAck(t, f.GetAck(), payload)
}

// Credit is counted in the shortest encoding, at both ends, whatever lengths a peer writes: otherwise the window, which
// gets back what a message takes by its length, would lose the difference for good.
func TestDecode_PublishCountsMessagesByTheirLength(t *testing.T) {
	padded := []byte{entryTag, 0x81, 0x80, 0x80, 0x00, 'x'}
	payload := protowire.AppendBytes([]byte{publishTag}, append([]byte{0x08, 1, 0x10, 1}, padded...))
	got, err := Decode(payload)
	if err != nil {
		return // a refusal would do as well
	}
	require.Equal(t, EncodedSize(1), got.(*PublishFrame).Bytes)
}

// everyPayload is a payload of each type of frame.
func everyPayload(t testing.TB, e Encoder) (out [][]byte) {
	t.Helper()
	for _, c := range everyControl() {
		out = append(out, control(t, e, c))
	}
	for _, p := range publishes[:3] {
		frame, err := e.AppendPublish(nil, segmentOf(p))
		require.NoError(t, err)
		out = append(out, payload(t, e, frame))
	}
	for _, a := range acks[1:] {
		frame, err := e.AppendAck(nil, ackOf(a))
		require.NoError(t, err)
		out = append(out, payload(t, e, frame))
	}
	return out
}

func TestEncoder_VerifyNoticesEveryFlippedBit(t *testing.T) {
	e := encoder(t, true)
	for _, p := range everyPayload(t, e) {
		if len(p) > 1000 {
			p = payload(t, e, mustPublish(t, e, &wire.Publish{Handle: 3, First: 4, Messages: [][]byte{pattern(300)}}))
		}
		for bit := range 8 * len(p) {
			p[bit/8] ^= 1 << (bit % 8)
			if _, err := e.Verify(p); !errors.Is(err, ErrChecksum) {
				t.Fatalf("bit %d of %x: %v", bit, p, err)
			}
			p[bit/8] ^= 1 << (bit % 8)
		}
		_, err := e.Verify(p)
		require.NoError(t, err)
	}
}

func mustPublish(t testing.TB, e Encoder, p *wire.Publish) []byte {
	t.Helper()
	out, err := e.AppendPublish(nil, segmentOf(p))
	require.NoError(t, err)
	return out
}

func TestDecode_RefusesEveryTruncatedPrefix(t *testing.T) {
	sealed, bare := encoder(t, true), encoder(t, false)
	for _, p := range everyPayload(t, sealed) {
		step := 1 + len(p)/500
		for n := 0; n < len(p); n += step {
			_, err := sealed.Verify(p[:n])
			require.ErrorIs(t, err, ErrChecksum, "%d bytes of %d", n, len(p))
		}
	}
	for _, p := range everyPayload(t, bare) {
		step := 1 + len(p)/500
		for n := 0; n < len(p); n += step {
			_, err := Decode(p[:n:n])
			var broken *ProtocolError
			require.ErrorAs(t, err, &broken, "%d bytes of %x", n, p[:min(len(p), 40)])
		}
	}
}

// publishOf wraps the fields of a Publish.
func publishOf(inner []byte) []byte { return protowire.AppendBytes([]byte{publishTag}, inner) }

func ackWith(inner []byte) []byte { return protowire.AppendBytes([]byte{ackTag}, inner) }

func TestDecode_BoundsTheMessagesOfAPublish(t *testing.T) {
	inner := func(n int) []byte { return append([]byte{0x08, 1, 0x10, 1}, bytes.Repeat([]byte{entryTag, 0}, n)...) }
	got, err := Decode(publishOf(inner(MaxBatchMessages)))
	require.NoError(t, err)
	require.Len(t, got.(*PublishFrame).Messages, MaxBatchMessages)
	_, err = Decode(publishOf(inner(MaxBatchMessages + 1)))
	var broken *ProtocolError
	require.ErrorAs(t, err, &broken)
	require.LessOrEqual(t, chunkMessages, MaxBatchMessages, "our own segments fit")
}

func TestDecode_RefusesHostileFrames(t *testing.T) {
	huge := "ffffffffffffffffff01"   // 2^64-1 as a varint, −1 to those who read it as signed
	half := "80808080808080808001"   // 2^63
	long := "8080808080808080808001" // a varint of eleven bytes
	head := "08011001"
	hostile := map[string][]byte{
		"nothing":                         {},
		"frame of 2^64-1 bytes":           unhex(t, "2a"+huge),
		"frame of 2^63 bytes":             unhex(t, "2a"+half+head+"220161"),
		"frame with an overlong length":   unhex(t, "2a"+long),
		"bytes behind the publish":        append(publishOf(unhex(t, head+"220161")), 0x08, 1),
		"bytes behind the ack":            append(ackWith(unhex(t, "0801")), 0),
		"publish in a publish's crc":      unhex(t, "2a0608011001220161"),
		"publish without messages":        publishOf(unhex(t, head)),
		"publish of nothing":              publishOf(nil),
		"message of 2^64-1 bytes":         publishOf(unhex(t, head+"22"+huge)),
		"message of 2^63 bytes":           publishOf(unhex(t, head+"22"+half+"61")),
		"message with an overlong length": publishOf(unhex(t, head+"22"+long+"61")),
		"message longer than the frame":   publishOf(unhex(t, head+"220361")),
		"message without length":          publishOf(unhex(t, head+"220161"+"22")),
		"something else between messages": publishOf(unhex(t, head+"220161"+"0801"+"220161")),
		"something else behind messages":  publishOf(unhex(t, head+"220161"+"1801")),
		"handle as bytes":                 publishOf(unhex(t, "0a0161"+"1001"+"220161")),
		"first as fixed64":                publishOf(unhex(t, "0801"+"110100000000000000"+"220161")),
		"messages as a varint":            publishOf(unhex(t, head+"2001")),
		"publish with field 0":            publishOf(unhex(t, "0001"+"220161")),
		"publish with a cut varint":       publishOf(unhex(t, "0880")),
		"ack with field 0":                ackWith(unhex(t, "0001")),
		"ack with a group":                ackWith(unhex(t, "0b0c")),
		"ack next as bytes":               ackWith(unhex(t, "120101")),
		"ack next as fixed32":             ackWith(unhex(t, "1501000000")),
		"ack with a cut range":            ackWith(unhex(t, "1a0180")),
		"ack with an overlong range":      ackWith(unhex(t, "1a0b"+long)),
		"ack ranges longer than the ack":  ackWith(unhex(t, "1a7f01")),
		"ack ranges of 2^64-1 bytes":      ackWith(unhex(t, "1a"+huge)),
		"ack credit cut":                  ackWith(unhex(t, "2080")),
		"hello as a varint":               unhex(t, "0801"),
		"unknown body":                    unhex(t, "9201020801"),
		"only a checksum":                 unhex(t, "7d01020304"),
		"topic is not UTF-8":              unhex(t, "1a053203fffefd"),
		"publish hidden behind a field":   unhex(t, "80017f"+"2a0708011001220161"),
		"noise":                           []byte(strings.Repeat("\xff", 100)),
	}
	for name, p := range hostile {
		got, err := Decode(p)
		var broken *ProtocolError
		require.ErrorAs(t, err, &broken, "%s: %v", name, got)
		require.Nil(t, got, name)
	}
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	require.NoError(t, err)
	return b
}

func TestDecode_PassesOverFieldsOfTheFuture(t *testing.T) {
	got, err := Decode(publishOf(unhex(t, "08011001"+"2805"+"220161"))) // field 5, before the messages
	require.NoError(t, err)
	require.Len(t, got.(*PublishFrame).Messages, 1)
	got, err = Decode(ackWith(unhex(t, "0801"+"3005")))
	require.NoError(t, err)
	require.Equal(t, uint64(1), got.(*AckFrame).Handle)
}

func TestEncoder_RefusesFramesOverTheCodecsLimit(t *testing.T) {
	codec, err := framing.NewFixed(4, binary.BigEndian, 100)
	require.NoError(t, err)
	e := Encoder{Codec: codec, Checksum: true}
	var tooLong *framing.LengthError
	for _, n := range []int{50, 200} {
		out, err := e.AppendPublish([]byte("before"), Segment{Handle: 1, First: 1, Body: body(pattern(n))})
		if n == 50 {
			require.NoError(t, err)
			continue
		}
		require.ErrorAs(t, err, &tooLong)
		require.Equal(t, "before", string(out))
		out, err = e.AppendControl([]byte("before"), &wire.Frame{Body: &wire.Frame_Goaway{
			Goaway: &wire.Goaway{Reason: strings.Repeat("x", n)},
		}})
		require.ErrorAs(t, err, &tooLong)
		require.Equal(t, "before", string(out))
	}
}

func TestEncoder_FrameOverheadBoundsWhatAPublishAdds(t *testing.T) {
	e := encoder(t, true)
	inner := body(pattern(MaxFrame(1<<20) - FrameOverhead - 4))
	frame, err := e.AppendPublish(nil, Segment{Handle: ^uint64(0), First: ^uint64(0), Gap: true, Body: inner})
	require.NoError(t, err)
	require.LessOrEqual(t, len(payload(t, e, frame))-len(inner), FrameOverhead)
	full := make([]uint64, 2*MaxRanges)
	for i := range full {
		full[i] = ^uint64(0)
	}
	ack, err := e.AppendAck(nil, AckFrame{^uint64(0), ^uint64(0), full, ^uint64(0), ^uint64(0)})
	require.NoError(t, err)
	require.LessOrEqual(t, len(payload(t, e, ack)), MinFrame)
	opened := control(t, e, &wire.Frame{Body: &wire.Frame_Opened{Opened: &wire.Opened{
		Handle: ^uint64(0), Next: ^uint64(0), Settled: full,
	}}})
	require.LessOrEqual(t, len(opened), MinFrame)
}
