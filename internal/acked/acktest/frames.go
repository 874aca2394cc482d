package acktest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/framing"
	"github.com/buffstreams/watermill-buffstreams/internal/session"
	"github.com/buffstreams/watermill-buffstreams/internal/wire"
)

// FuzzEncoder encodes frames of up to 1,024 bytes with checksums, as both halves do in fuzz tests.
func FuzzEncoder(t testing.TB) session.Encoder {
	codec, err := session.NewCodec(1024)
	require.NoError(t, err)
	return session.Encoder{Codec: codec, Checksum: true}
}

// Script makes one side of a conversation out of the bytes of a fuzz input: whole frames of any type whose fields are
// small numbers or near the ends of 64 bits, in any order, with raw bytes and wrong checksums between.
type Script struct {
	T   testing.TB
	Enc session.Encoder
	In  []byte // not used yet
	Out []byte // the conversation
}

// Byte takes a byte of the input; 0 when there is none left.
func (s *Script) Byte() int {
	if len(s.In) == 0 {
		return 0
	}
	b := s.In[0]
	s.In = s.In[1:]
	return int(b)
}

func (s *Script) take(n int) []byte {
	n = min(n, len(s.In))
	out := s.In[:n]
	s.In = s.In[n:]
	return out
}

func (s *Script) number() uint64 {
	switch b := s.Byte(); {
	case b < 220:
		return uint64(b % 16)
	case b < 245:
		return ^uint64(0) - uint64(b%6)
	default:
		return binary.LittleEndian.Uint64(append(bytes.Clone(s.take(8)), make([]byte, 8)...))
	}
}

// Control appends a frame.
func (s *Script) Control(f *wire.Frame) {
	out, err := s.Enc.AppendControl(s.Out, f)
	require.NoError(s.T, err)
	s.Out = out
}

func (s *Script) id() []byte {
	id := make([]byte, 16)
	if id[0] = byte(s.Byte()); id[0] > 250 {
		return id[:int(id[0])-250]
	}
	id[0] %= 12 // so few that they meet
	return id
}

func (s *Script) topic() string { return []string{"a", "b", "", "c", "long\r\n\x00"}[s.Byte()%5] }

func (s *Script) messages() (out [][]byte) {
	for range s.Byte() % 5 {
		n := s.Byte()
		if n > 250 {
			n = 1020 + n%8 // about the limit
		}
		out = append(out, bytes.Repeat([]byte{'m'}, n))
	}
	return out
}

// Sender appends one frame of a sender, or something strange.
func (s *Script) Sender() {
	switch s.Byte() % 12 {
	case 0, 1:
		s.Control(&wire.Frame{Body: &wire.Frame_Open{Open: &wire.Open{
			Handle: s.number(), Publisher: s.id(), Secret: s.id(), Epoch: s.number(), Stream: s.number(), Topic: s.topic(),
			Base: s.number(), WantMessages: s.number(), WantBytes: s.number() * 100, LeastBytes: s.number(), Tenure: uint64(s.Byte() % 3),
		}}})
	case 2, 3, 4:
		s.Control(&wire.Frame{Body: &wire.Frame_Publish{Publish: &wire.Publish{
			Handle: s.number(), First: s.number(), Flags: uint32(s.Byte()) % 8, Messages: s.messages(),
		}}})
	case 5:
		s.Control(&wire.Frame{Body: &wire.Frame_Want{Want: &wire.Want{
			Handle: s.number(), Messages: s.number(), Bytes: s.number(), LeastBytes: s.number(), SeenMessages: s.number(),
		}}})
	case 6:
		s.Control(&wire.Frame{Body: &wire.Frame_RejectSeen{RejectSeen: &wire.RejectSeen{Handle: s.number(), Sequence: s.number()}}})
	case 7:
		s.Control(&wire.Frame{Body: &wire.Frame_Release{Release: &wire.Release{Handle: s.number()}}})
	case 8:
		s.Control(&wire.Frame{Body: &wire.Frame_Ping{Ping: &wire.Ping{Id: s.number()}}})
	case 9:
		s.Control(&wire.Frame{Body: &wire.Frame_Pong{Pong: &wire.Pong{Id: s.number()}}})
	case 10:
		s.Control(&wire.Frame{Body: &wire.Frame_Revoke{Revoke: &wire.Revoke{
			Handle: s.number(), Publisher: s.id(), Secret: s.id(), Epoch: s.number(), Stream: s.number(), Topic: s.topic(),
			Tenure: s.number(), AtOnce: s.Byte()%2 == 0,
		}}})
	default:
		s.strange()
	}
}

// strange appends what no peer should send.
func (s *Script) strange() {
	switch s.Byte() % 5 {
	case 0:
		s.Out = append(s.Out, s.take(s.Byte()%16)...)
	case 1: // the right checksum of any bytes
		payload := s.take(s.Byte() % 40)
		s.Out = append(s.Out, SealedPayload(payload)...)
	case 2:
		s.Control(&wire.Frame{Body: &wire.Frame_Goaway{Goaway: &wire.Goaway{}}})
	case 3:
		s.Control(&wire.Frame{Body: &wire.Frame_Failure{Failure: &wire.Failure{Code: wire.Code(s.Byte())}}})
	case 4:
		if len(s.Out) > 0 {
			s.Out[s.Byte()*7%len(s.Out)] ^= byte(s.Byte())
		}
	}
}

// SealedPayload makes a frame of any payload, with the right checksum.
func SealedPayload(payload []byte) []byte {
	codec, err := session.NewCodec(1024)
	if err != nil {
		return nil
	}
	// A frame whose only field is unknown is copied as it is: the encoder then adds the checksum of exactly these
	// bytes.
	f := &wire.Frame{}
	f.ProtoReflect().SetUnknown(payload)
	out, err := (session.Encoder{Codec: codec, Checksum: true}).AppendControl(nil, f)
	if err != nil {
		return nil
	}
	return out
}

// CheckWritten fails the test unless written is a run of whole frames, with a Failure only at its end.
func CheckWritten(t *testing.T, enc session.Encoder, written []byte) {
	t.Helper()
	r := framing.NewReader(bytes.NewReader(written), enc.Codec)
	failed := false
	for {
		payload, err := r.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		require.NoError(t, err)
		payload, err = enc.Verify(payload)
		require.NoError(t, err)
		frame, err := session.Decode(payload)
		require.NoError(t, err)
		require.False(t, failed, "%v follows a failure", frame)
		_, failed = frame.(*wire.Failure)
	}
}

// Listener appends one frame of a listener, or something strange.
func (s *Script) Listener() {
	handle := s.number() % 4
	switch s.Byte() % 10 {
	case 0, 1:
		s.Control(&wire.Frame{Body: &wire.Frame_Opened{Opened: &wire.Opened{
			Handle: handle, Code: wire.Code(s.Byte() % 3 * (s.Byte() % 12)), Next: s.number(), Settled: s.pairs(),
		}}})
	case 2, 3, 4:
		s.Control(&wire.Frame{Body: &wire.Frame_Ack{Ack: &wire.Ack{
			Handle: handle, Next: s.number(), Settled: s.pairs(), CreditMessages: s.number(), CreditBytes: s.number() * 100,
		}}})
	case 5:
		s.Control(&wire.Frame{Body: &wire.Frame_Reject{Reject: &wire.Reject{Handle: handle, Sequence: s.number(), Reason: "\x1b[31m\n"}}})
	case 6:
		s.Control(&wire.Frame{Body: &wire.Frame_Ping{Ping: &wire.Ping{Id: s.number()}}})
	case 7:
		s.Control(&wire.Frame{Body: &wire.Frame_Welcome{Welcome: &wire.Welcome{Version: uint32(s.Byte() % 3), MaxFrame: 1 << 17}}})
	case 8:
		s.Control(&wire.Frame{Body: &wire.Frame_Returned{Returned: &wire.Returned{
			Handle: handle, Next: s.number(), Settled: s.pairs(), Returned: s.pairs(), InHand: uint64(s.Byte() % 2),
		}}})
	default:
		s.strange()
	}
}

func (s *Script) pairs() (out []uint64) {
	for range s.Byte() % 4 {
		first := s.number()
		out = append(out, first, first+s.number()%4)
	}
	return out
}
