package session

import (
	"encoding/binary"
	"hash/crc32"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/buffstreams/watermill-buffstreams/framing"
	"github.com/buffstreams/watermill-buffstreams/internal/wire"
)

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
