package session

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/buffstreams/watermill-buffstreams/framing"
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

// maxGreetingFrame limits the payload of a frame from a peer that was not welcomed yet, in bytes.
const maxGreetingFrame = 4 << 10

// NewCodec returns the framing of connections with messages of up to maxMessage bytes: four bytes of length,
// big-endian.
func NewCodec(maxMessage int) (framing.Codec, error) {
	return framing.NewFixed(4, binary.BigEndian, MaxFrame(maxMessage))
}

// GreetingCodec returns the framing that a listener reads with before it has welcomed the peer.
func GreetingCodec() (framing.Codec, error) {
	return framing.NewFixed(4, binary.BigEndian, maxGreetingFrame)
}
