package session

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/buffstreams/watermill-buffstreams/framing"
	"github.com/buffstreams/watermill-buffstreams/internal/wire"
)

// Version is the version of the protocol that this package speaks.
const Version = 1

// MaxBatchMessages is the most messages that one Publish may carry.
const MaxBatchMessages = 4096

// publishOverhead bounds what a Publish frame adds to its encoded messages, in bytes: tags, lengths, handle, sequence,
// checksum.
const publishOverhead = 40

// FrameOverhead bounds what a Publish frame adds to a single message, in bytes, its own tag and length included.
const FrameOverhead = 64

// MinFrame is the least limit on a frame's payload, in bytes, that a peer may have: it carries a whole chunk.
const MinFrame = 64<<10 + FrameOverhead

// MaxFrame is the largest frame payload, in bytes, where messages have up to maxMessage bytes.
func MaxFrame(maxMessage int) int { return max(maxMessage, MinFrame-FrameOverhead) + FrameOverhead }

const (
	crcSize = 5    // one byte of tag, four of checksum
	crcTag  = 0x7d // field 15, fixed32

	publishTag = 0x2a // Frame.publish
	ackTag     = 0x32 // Frame.ack
	entryTag   = 0x22 // Publish.messages

	flagGap    = 1 // Publish.flags: see PublishFrame
	flagAckNow = 2
	flagAgain  = 4
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ErrChecksum means that a frame was damaged on its way. It ends the connection.
var ErrChecksum = errors.New("buffstreams: frame checksum does not match")

// ProtocolError says which rule of the protocol the peer broke. It ends the connection.
type ProtocolError struct{ Rule string }

func (e *ProtocolError) Error() string { return "buffstreams: the peer broke the protocol: " + e.Rule }

func violation(format string, args ...any) error {
	return &ProtocolError{Rule: fmt.Sprintf(format, args...)}
}

// PublishFrame is a decoded Publish. Its messages are views of the payload that was decoded.
type PublishFrame struct {
	Handle, First uint64 // First is the sequence of the first message
	Gap           bool   // every sequence between the last message sent and First is settled
	AckNow        bool   // a caller of Publish waits for the Ack
	Again         bool   // another receiver may have had the messages
	Messages      [][]byte
	Bytes         int    // encoded size of the messages, as credit counts it
	Memory        []byte // of the payload, for the consumer of its only message to keep; nil: it is the reader's
}

// AckFrame is a decoded Ack. A field that is zero has not changed.
type AckFrame struct {
	Handle, Next    uint64   // Next is the lowest sequence that was not received
	Settled         []uint64 // pairs of first and last
	Messages, Bytes uint64   // credit granted since Opened, as totals
}

// Segment is a run of consecutive messages of a stream that Output returns to be sent as one Publish. Body is their
// encoding, as a view of the retransmit buffer: it does not change before the next Output.
type Segment struct {
	Handle, First uint64
	Count         uint64 // messages
	Gap, AckNow   bool   // as in PublishFrame
	Again         bool
	Body          []byte
}

// Encoder turns frames into bytes on the wire, and checks the checksums of those that come. Checksum is off under TLS.
type Encoder struct {
	Codec    framing.Codec
	Checksum bool
}

// AppendControl appends a whole frame.
func (e Encoder) AppendControl(dst []byte, f *wire.Frame) ([]byte, error) {
	dst, err := e.Codec.AppendHeader(dst, proto.Size(f)+e.trailerSize())
	if err != nil {
		return dst, err
	}
	start := len(dst)
	if dst, err = (proto.MarshalOptions{}).MarshalAppend(dst, f); err != nil {
		return dst, err
	}
	return e.appendTrailer(dst, start), nil
}

// AppendPublish appends a whole Publish frame.
func (e Encoder) AppendPublish(dst []byte, s Segment) ([]byte, error) {
	var fields [32]byte
	return e.appendBody(dst, publishTag, s.appendFields(fields[:0]), s.Body)
}

// AppendAround appends a Publish frame without its segment's body, which belongs at the returned offset: a large body
// can then be written from where it is.
func (e Encoder) AppendAround(dst []byte, s Segment) (out []byte, at int, err error) {
	var fields [32]byte
	out, start, err := e.appendHead(dst, publishTag, s.appendFields(fields[:0]), len(s.Body))
	if err != nil {
		return dst, 0, err
	}
	at = len(out)
	if e.Checksum {
		out = appendChecksum(out, crc32.Update(crc32.Checksum(out[start:], castagnoli), castagnoli, s.Body))
	}
	return out, at, nil
}

// appendFields appends the fields that precede the messages.
func (s Segment) appendFields(dst []byte) []byte {
	dst = protowire.AppendVarint(append(dst, 0x08), s.Handle)
	dst = protowire.AppendVarint(append(dst, 0x10), s.First)
	var flags byte
	if s.Gap {
		flags |= flagGap
	}
	if s.AckNow {
		flags |= flagAckNow
	}
	if s.Again {
		flags |= flagAgain
	}
	if flags != 0 {
		dst = append(dst, 0x18, flags)
	}
	return dst
}

// AppendAck appends a whole Ack frame.
func (e Encoder) AppendAck(dst []byte, a AckFrame) ([]byte, error) {
	body := make([]byte, 0, 64)
	body = appendUint(body, 1, a.Handle)
	body = appendUint(body, 2, a.Next)
	if len(a.Settled) > 0 {
		var packed []byte
		for _, v := range a.Settled {
			packed = protowire.AppendVarint(packed, v)
		}
		body = protowire.AppendTag(body, 3, protowire.BytesType)
		body = protowire.AppendBytes(body, packed)
	}
	body = appendUint(body, 4, a.Messages)
	body = appendUint(body, 5, a.Bytes)
	return e.appendBody(dst, ackTag, body, nil)
}

func appendUint(dst []byte, n protowire.Number, v uint64) []byte {
	if v == 0 {
		return dst
	}
	return protowire.AppendVarint(protowire.AppendTag(dst, n, protowire.VarintType), v)
}

// appendBody appends a frame with a body in two parts, so that a large second part is copied only once.
func (e Encoder) appendBody(dst []byte, tag byte, head, tail []byte) ([]byte, error) {
	dst, start, err := e.appendHead(dst, tag, head, len(tail))
	if err != nil {
		return dst, err
	}
	return e.appendTrailer(append(dst, tail...), start), nil
}

// appendHead appends a frame up to the last n bytes of its body. start is the offset of the payload.
func (e Encoder) appendHead(dst []byte, tag byte, head []byte, n int) (out []byte, start int, err error) {
	size := len(head) + n
	dst, err = e.Codec.AppendHeader(dst, 1+protowire.SizeVarint(uint64(size))+size+e.trailerSize())
	if err != nil {
		return dst, 0, err
	}
	start = len(dst)
	dst = protowire.AppendVarint(append(dst, tag), uint64(size))
	return append(dst, head...), start, nil
}

func (e Encoder) trailerSize() int {
	if e.Checksum {
		return crcSize
	}
	return 0
}

func (e Encoder) appendTrailer(dst []byte, start int) []byte {
	if !e.Checksum {
		return dst
	}
	return appendChecksum(dst, crc32.Checksum(dst[start:], castagnoli))
}

func appendChecksum(dst []byte, sum uint32) []byte {
	return binary.LittleEndian.AppendUint32(append(dst, crcTag), sum)
}

// Verify checks a received payload's checksum and returns the payload without it.
func (e Encoder) Verify(payload []byte) ([]byte, error) {
	if !e.Checksum {
		return payload, nil
	}
	n := len(payload) - crcSize
	if n < 0 || payload[n] != crcTag {
		return nil, ErrChecksum
	}
	if crc32.Checksum(payload[:n], castagnoli) != binary.LittleEndian.Uint32(payload[n+1:]) {
		return nil, ErrChecksum
	}
	return payload[:n], nil
}

// IsPublish tells whether a payload that Verify returned is a Publish.
func IsPublish(payload []byte) bool { return len(payload) > 0 && payload[0] == publishTag }

// Decode parses a payload that Verify returned. The result is a *PublishFrame, an *AckFrame, or a pointer to the
// generated type of the frame's body; the error is a *ProtocolError.
func Decode(payload []byte) (any, error) {
	if len(payload) == 0 {
		return nil, violation("empty frame")
	}
	switch payload[0] {
	case publishTag, ackTag:
		body, n := protowire.ConsumeBytes(payload[1:])
		if n < 0 || n+1 != len(payload) {
			return nil, violation("malformed frame")
		}
		if payload[0] == publishTag {
			p := &PublishFrame{}
			if err := p.decode(body); err != nil {
				return nil, err
			}
			return p, nil
		}
		return decodeAck(body)
	}
	return decodeControl(payload)
}

// decodeControl requires that the payload is one field: another body beside it, an unknown field or a checksum that is
// not the last field is what a receiver and a checker of frames could read differently.
func decodeControl(payload []byte) (any, error) {
	num, typ, n := protowire.ConsumeTag(payload)
	if n < 0 || !num.IsValid() || typ != protowire.BytesType {
		return nil, violation("malformed frame")
	}
	if _, m := protowire.ConsumeBytes(payload[n:]); m < 0 || n+m != len(payload) {
		return nil, violation("a frame must have one body and nothing beside it")
	}
	var f wire.Frame
	if err := proto.Unmarshal(payload, &f); err != nil {
		return nil, violation("malformed frame")
	}
	switch b := f.Body.(type) {
	case *wire.Frame_Hello:
		return b.Hello, nil
	case *wire.Frame_Welcome:
		return b.Welcome, nil
	case *wire.Frame_Open:
		return b.Open, nil
	case *wire.Frame_Opened:
		return b.Opened, nil
	case *wire.Frame_Want:
		return b.Want, nil
	case *wire.Frame_Reject:
		return b.Reject, nil
	case *wire.Frame_RejectSeen:
		return b.RejectSeen, nil
	case *wire.Frame_Ping:
		return b.Ping, nil
	case *wire.Frame_Pong:
		return b.Pong, nil
	case *wire.Frame_Goaway:
		return b.Goaway, nil
	case *wire.Frame_Failure:
		return b.Failure, nil
	case *wire.Frame_Release:
		return b.Release, nil
	case *wire.Frame_Revoke:
		return b.Revoke, nil
	case *wire.Frame_Returned:
		return b.Returned, nil
	}
	return nil, violation("unknown frame")
}

// Decode parses the payload of a Publish into p, whose slice of messages it reuses. After an error p is invalid.
func (p *PublishFrame) Decode(payload []byte) error {
	body, n := protowire.ConsumeBytes(payload[1:])
	if n < 0 || n+1 != len(payload) {
		return violation("malformed frame")
	}
	return p.decode(body)
}

// decode requires the fields in ascending order, as every encoder writes them: the messages then come last.
func (p *PublishFrame) decode(body []byte) error {
	*p = PublishFrame{Messages: p.Messages[:0]}
	for len(body) > 0 && body[0] != entryTag {
		num, typ, n := protowire.ConsumeTag(body)
		if n < 0 || !num.IsValid() || typ != protowire.VarintType {
			return violation("malformed publish")
		}
		v, m := protowire.ConsumeVarint(body[n:])
		if m < 0 {
			return violation("malformed publish")
		}
		switch num {
		case 1:
			p.Handle = v
		case 2:
			p.First = v
		case 3:
			p.Gap, p.AckNow, p.Again = v&flagGap != 0, v&flagAckNow != 0, v&flagAgain != 0
		}
		body = body[n+m:]
	}
	return p.entries(body)
}

// entries parses the messages.
func (p *PublishFrame) entries(body []byte) error {
	for len(body) > 0 {
		start, end := entryBounds(body)
		if start < 0 {
			return violation("malformed publish")
		}
		if len(p.Messages) == MaxBatchMessages {
			return violation("more than %d messages in one publish", MaxBatchMessages)
		}
		p.Messages = append(p.Messages, body[start:end:end])
		p.Bytes += EncodedSize(end - start) // not end, as a peer may pad its lengths
		body = body[end:]
	}
	if len(p.Messages) == 0 {
		return violation("publish without messages")
	}
	return nil
}

// Release drops the references to the decoded payload. p can be decoded into again.
func (p *PublishFrame) Release() {
	p.Memory = nil
	clear(p.Messages)
	p.Messages = p.Messages[:0]
}

// entryBounds returns where the first encoded message in body begins and ends, without its tag and length; −1 if it is
// malformed.
func entryBounds(body []byte) (start, end int) {
	if body[0] != entryTag {
		return -1, -1
	}
	length, n := protowire.ConsumeVarint(body[1:])
	if n < 0 || length > uint64(len(body)-1-n) {
		return -1, -1
	}
	return 1 + n, 1 + n + int(length)
}

// entrySize is the size of the first encoded message in body, tag and length included; −1 if it is malformed.
func entrySize(body []byte) int {
	_, end := entryBounds(body)
	return end
}

func decodeAck(body []byte) (*AckFrame, error) {
	a := &AckFrame{}
	for len(body) > 0 {
		num, typ, n := protowire.ConsumeTag(body)
		if n < 0 || !num.IsValid() {
			return nil, violation("malformed ack")
		}
		body = body[n:]
		if num == 3 && typ == protowire.BytesType {
			packed, m := protowire.ConsumeBytes(body)
			if m < 0 {
				return nil, violation("malformed ack")
			}
			body = body[m:]
			for len(packed) > 0 {
				v, k := protowire.ConsumeVarint(packed)
				if k < 0 {
					return nil, violation("malformed ack")
				}
				a.Settled, packed = append(a.Settled, v), packed[k:]
			}
			continue
		}
		v, m := protowire.ConsumeVarint(body)
		if m < 0 || typ != protowire.VarintType {
			return nil, violation("malformed ack")
		}
		body = body[m:]
		switch num {
		case 1:
			a.Handle = v
		case 2:
			a.Next = v
		case 3: // not packed
			a.Settled = append(a.Settled, v)
		case 4:
			a.Messages = v
		case 5:
			a.Bytes = v
		}
	}
	return a, nil
}
