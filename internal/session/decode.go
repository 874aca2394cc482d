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
			p.Gap, p.AckNow = v&flagGap != 0, v&flagAckNow != 0
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
