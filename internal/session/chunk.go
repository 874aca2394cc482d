package session

import "google.golang.org/protobuf/encoding/protowire"

const (
	// A chunk takes no further message beyond either bound, so that one that is not settled for long pins little.
	chunkBytes    = 64<<10 - FrameOverhead
	chunkMessages = 1024

	chunkInitial = 512 // bytes of a stream's first chunk
)

// chunk is a run of consecutive messages of a stream, kept until all are settled. Its buffer never moves and is only
// appended to, so that the flusher can write a part of it to the socket while more is added.
type chunk struct {
	first   uint64
	count   int
	live    int    // messages not settled
	largest int    // no message with its tag and length is larger, in bytes
	buf     []byte // nil: freed, as none of the messages is needed any more
	lent    bool   // a Client that had the stream may still write from buf: its memory is not used again
	adopted bool   // buf came with one large message: no other may be appended
}

func (c *chunk) end() uint64 { return c.first + uint64(c.count) }

// hasRoom tells whether the chunk has room for a further message of n bytes.
func (c *chunk) hasRoom(n int) bool {
	return !c.adopted && c.count < chunkMessages && len(c.buf)+n <= min(cap(c.buf), chunkBytes)
}

// offsetAfter returns the offset behind the first n messages at or after offset.
func (c *chunk) offsetAfter(offset int, n uint64) int {
	for ; n > 0; n-- {
		offset += entrySize(c.buf[offset:])
	}
	return offset
}

// entry returns the message with sequence seq with its tag and length, as a view of the chunk.
func (c *chunk) entry(seq uint64) []byte {
	at := c.buf[c.offsetAfter(0, seq-c.first):]
	return at[:entrySize(at)]
}

// message returns the message with sequence seq, as a view of the chunk.
func (c *chunk) message(seq uint64) []byte {
	msg, _ := protowire.ConsumeBytes(c.buf[c.offsetAfter(0, seq-c.first)+1:])
	return msg
}

// fit returns the longest run of messages from offset on, at most count of them and at most so many bytes, of which
// none with its tag and length is larger than most.
func (c *chunk) fit(offset int, count, bytes uint64, most int) (n uint64, size int) {
	for n < count {
		entry := entrySize(c.buf[offset+size:])
		if entry > most || uint64(size+entry) > bytes {
			break
		}
		size += entry
		n++
	}
	return n, size
}
