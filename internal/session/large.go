package session

import "github.com/buffstreams/watermill-buffstreams/internal/buffers"

// largeMessage is the size from which on a message has memory of its own: it goes from the Marshaler to the socket without
// being copied.
const largeMessage = 16 << 10

// takeLarge returns memory for a message of about n bytes.
func takeLarge(n int) []byte { return buffers.Get(n + lengthGuess + 128) } // what metadata may need

// yard holds the memory of messages that are settled while segments may have views of it.
type yard struct{ retired [][]byte }

// recycle lets that memory be used again. Nobody may have a segment any more.
func (y *yard) recycle() {
	for _, buf := range y.retired {
		buffers.Put(buf)
	}
	clear(y.retired)
	y.retired = y.retired[:0]
}
