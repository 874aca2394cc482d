package session

import (
	"encoding/binary"

	"github.com/buffstreams/watermill-buffstreams/framing"
)

// maxGreeting is the limit of a frame from a peer that was not welcomed yet, in bytes.
const maxGreeting = 4 << 10

// NewCodec returns the codec of frames that carry messages of up to maxMessage bytes: four bytes of length, big-endian.
func NewCodec(maxMessage int) (framing.Codec, error) {
	return framing.NewFixed(4, binary.BigEndian, MaxFrame(maxMessage))
}

// GreetingCodec returns the codec of the frames that a listener reads before it has welcomed the peer.
func GreetingCodec() (framing.Codec, error) {
	return framing.NewFixed(4, binary.BigEndian, maxGreeting)
}
