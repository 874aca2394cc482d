package session

import (
	"encoding/binary"

	"github.com/buffstreams/watermill-buffstreams/framing"
)

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
