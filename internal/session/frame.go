package session

import (
	"errors"
	"fmt"
	"hash/crc32"
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
	Gap, AckNow   bool // as in PublishFrame
	Body          []byte
}
