package session

import (
	"encoding/binary"
	"hash/crc32"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/buffstreams/watermill-buffstreams/internal/wire"
)

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
	case publishTag:
		p := &PublishFrame{}
		if err := p.Decode(payload); err != nil {
			return nil, err
		}
		return p, nil
	case ackTag:
		body, err := bodyOf(payload)
		if err != nil {
			return nil, err
		}
		return decodeAck(body)
	}
	return decodeControl(payload)
}

// bodyOf returns the body of a Publish or an Ack, which is all that its payload may have.
func bodyOf(payload []byte) ([]byte, error) {
	body, n := protowire.ConsumeBytes(payload[1:])
	if n < 0 || n+1 != len(payload) {
		return nil, violation("malformed frame")
	}
	return body, nil
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
	m := f.ProtoReflect()
	body := m.WhichOneof(bodies)
	if body == nil || num == publishTag>>3 || num == ackTag>>3 { // the latter have one form, which Decode knows
		return nil, violation("unknown frame")
	}
	return m.Get(body).Message().Interface(), nil
}

// bodies are the frames that there are.
var bodies = (&wire.Frame{}).ProtoReflect().Descriptor().Oneofs().ByName("body")

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

// Decode parses the payload of a Publish into p, whose slice of messages it reuses. After an error p is invalid.
func (p *PublishFrame) Decode(payload []byte) error {
	body, err := bodyOf(payload)
	if err != nil {
		return err
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

// AckFrame is a decoded Ack. A field that is zero has not changed.
type AckFrame struct {
	Handle, Next    uint64   // Next is the lowest sequence that was not received
	Settled         []uint64 // pairs of first and last
	Messages, Bytes uint64   // credit granted since Opened, as totals
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
