package session

import (
	"google.golang.org/protobuf/encoding/protowire"
)

// lengthGuess is the width that is kept free for a message's length: two bytes suit 128 to 16,383 bytes.
const lengthGuess = 2

// Batch collects messages in the form in which Publish carries them. The zero value is empty and ready.
type Batch struct {
	buf     []byte
	entries []batchEntry

	start int // of the message that was begun
	large bool
}

// batchEntry is one encoded message: in the batch's buffer, or, if it is large, in one of its own, which the stream takes
// over.
type batchEntry struct {
	start, end int
	own        []byte
}

// Append adds one message. encode appends the message's bytes to dst and returns the longer slice; when it fails the
// batch is as before. The message may not exceed limit bytes; size is what it has.
func (b *Batch) Append(limit int, encode func(dst []byte) ([]byte, error)) (size int, ok bool, err error) {
	full, err := encode(b.Begin(0))
	if err != nil {
		return 0, false, err
	}
	size, ok = b.End(full, limit)
	return size, ok, nil
}

// Begin begins a message of at least hint bytes: End takes the returned slice with the message's bytes appended. Without
// End the batch is as before.
func (b *Batch) Begin(hint int) []byte {
	dst := b.buf
	if b.large = hint >= largeMessage; b.large {
		dst = takeLarge(hint)
	}
	b.start = len(dst)
	return append(dst, entryTag, 0, 0)
}

// End adds the message that full ends with, unless it is larger than limit. size is what it has.
func (b *Batch) End(full []byte, limit int) (size int, ok bool) {
	start := b.start
	size = len(full) - start - 1 - lengthGuess
	if size > limit {
		return size, false
	}
	width := protowire.SizeVarint(uint64(size))
	for range width - lengthGuess {
		full = append(full, 0)
	}
	if width != lengthGuess {
		copy(full[start+1+width:], full[start+1+lengthGuess:start+1+lengthGuess+size])
	}
	protowire.AppendVarint(full[:start+1], uint64(size))
	full = full[:start+1+width+size]
	if b.large {
		b.entries = append(b.entries, batchEntry{own: full})
		return size, true
	}
	b.buf = full
	b.entries = append(b.entries, batchEntry{start: start, end: len(full)})
	return size, true
}

// Len is the number of messages.
func (b *Batch) Len() int { return len(b.entries) }

// entry is message i as Publish carries it.
func (b *Batch) entry(i int) []byte {
	e := b.entries[i]
	if e.own != nil {
		return e.own
	}
	return b.buf[e.start:e.end]
}

// Messages returns the encoded messages, as views of the batch.
func (b *Batch) Messages() [][]byte {
	all := make([][]byte, b.Len())
	for i := range all {
		all[i], _ = protowire.ConsumeBytes(b.entry(i)[1:])
	}
	return all
}

// Reset empties the batch and keeps its memory, unless that is large.
func (b *Batch) Reset() {
	const keep = 1 << 20
	if cap(b.buf) > keep {
		b.buf = nil
	}
	clear(b.entries)
	b.buf, b.entries = b.buf[:0], b.entries[:0]
}

const (
	chunkBytes    = 64<<10 - FrameOverhead // a chunk takes no further message beyond this, so that a stuck one pins little
	chunkMessages = 1024
	chunkInitial  = 512
)

// chunk is a run of consecutive messages of a stream, kept until all are settled. buf is only ever appended to, and never
// moves, so that a part of it can be written to a socket while more is added.
type chunk struct {
	first uint64
	count int
	live  int // messages not settled
	buf   []byte
	alone bool // buf is that of one large message: nothing may be appended
}

func (c *chunk) end() uint64 { return c.first + uint64(c.count) }

// takes tells whether the chunk has room for a further message of n bytes.
func (c *chunk) takes(n int) bool {
	return !c.alone && c.count < chunkMessages && len(c.buf)+n <= min(cap(c.buf), chunkBytes)
}

// skip returns the offset behind the first n messages at or after offset.
func (c *chunk) skip(offset int, n uint64) int {
	for ; n > 0; n-- {
		offset += entrySize(c.buf[offset:])
	}
	return offset
}

// message returns the bytes of one message.
func (c *chunk) message(seq uint64) []byte {
	msg, _ := protowire.ConsumeBytes(c.buf[c.skip(0, seq-c.first)+1:])
	return msg
}
