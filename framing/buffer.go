package framing

import (
	"io"
	"math"

	"github.com/buffstreams/watermill-buffstreams/internal/buffers"
)

// fill reads once from the source, into all the room that the buffer has.
func (r *Reader) fill() error {
	if r.srcErr == nil { // nothing comes after it
		r.makeRoom()
	}
	n, err := r.read(r.buf[r.w:])
	r.w += n
	return err
}

// read returns what the source has, at least one byte without an error. One that came with bytes is returned the next
// time.
func (r *Reader) read(free []byte) (int, error) {
	if err := r.srcErr; err != nil {
		r.srcErr = nil
		return 0, err
	}
	for range maxEmptyReads {
		n, err := r.src.Read(free)
		if n < 0 || n > len(free) {
			return 0, errBadRead
		}
		if n > 0 {
			r.srcErr = err
			return n, nil
		}
		if err != nil {
			return 0, err
		}
	}
	return 0, io.ErrNoProgress
}

// direct reports whether the frame in progress, which is not whole, goes into memory of its own, and begins that.
func (r *Reader) direct() bool {
	if r.own != nil {
		return true
	}
	if r.width == 0 || r.length < minDirect || r.length > r.largest || r.srcErr != nil {
		return false
	}
	r.own = buffers.Get(r.length)[:r.length]
	r.got = copy(r.own, r.buf[r.r+r.width:r.w])
	r.r, r.w = 0, 0
	if len(r.buf) > startSize {
		r.drop()
		r.buf = make([]byte, startSize) // of the next one only the header comes here, and little more
	}
	return true
}

// dropOwn lets go of the last frame's memory, if Take did not hand it over.
func (r *Reader) dropOwn() {
	if r.own != nil {
		buffers.Put(r.own)
		r.own = nil
	}
}

// fillOwn reads once from the source, at most to the end of the payload.
func (r *Reader) fillOwn() error {
	n, err := r.read(r.own[r.got:])
	r.got += n
	return err
}

// makeRoom moves what is held to the front of a buffer that is not full. A frame is moved at most once per buffer:
// afterwards it starts at 0.
func (r *Reader) makeRoom() {
	if size := r.nextSize(); size != len(r.buf) {
		old := r.buf
		r.replace(size)
		buffers.Put(old)
		return
	}
	if r.r > 0 {
		r.w = copy(r.buf, r.buf[r.r:r.w])
		r.r = 0
	}
}

// replace leaves the old buffer to the caller of Take or to the garbage collector. The new one has at least size bytes
// and room for more than what is held.
func (r *Reader) replace(size int) {
	held := r.buf[r.r:r.w]
	buf := newBuffer(max(size, len(held)+1))
	r.r, r.w = 0, copy(buf, held)
	r.buf, r.small = buf, 0
}

func newBuffer(size int) []byte {
	if size&(size-1) == 0 && size <= streamSize { // of these none has room to spare, which would count as well
		return buffers.Get(size)[:size]
	}
	return make([]byte, size)
}

// drop gives the buffer back. The last payload must not be in use.
func (r *Reader) drop() {
	buffers.Put(r.buf)
	r.buf, r.r, r.w, r.small = nil, 0, 0, 0
}

// nextSize decides which size the buffer has for the next read. Invariant: at most startSize, or 9/4 of the bytes
// received.
func (r *Reader) nextSize() int {
	size, held := len(r.buf), r.w-r.r
	switch {
	case size < startSize:
		return startSize
	case held == size:
		return r.grown()
	case size > streamSize && r.r > 0:
		return r.modest() // the frame that needed it was returned
	case r.w == size && size < streamSize:
		return min(2*size, streamSize) // the last read filled it: more is waiting
	case r.r > 0 && r.wasteful():
		return max(startSize, 2*held)
	}
	return size
}

// grown is the next size for a frame that is larger than the buffer: twice as large, but above streamSize the size of
// the frame if that is less or hardly more, which is usual where payloads are a power of two and headers follow.
func (r *Reader) grown() int {
	size := 2 * len(r.buf)
	if need := r.frameLength(); size > streamSize && need <= size+size/8 {
		return max(need, streamSize)
	}
	return size
}

// modest is the size of the buffer that follows the present one.
func (r *Reader) modest() int {
	if len(r.buf) > streamSize {
		return modestSize
	}
	return len(r.buf)
}

// wasteful counts a round, which ends when a read is due after whole frames were returned, and reports whether the last
// ones left most of the buffer unused.
func (r *Reader) wasteful() bool {
	if len(r.buf) == startSize || r.w > len(r.buf)/4 {
		r.small = 0
		return false
	}
	r.small++
	return r.small >= shrinkAfter
}

// frameLength is the length with the header of the frame in progress, whose header must be known. A sum above the
// largest int counts as that.
func (r *Reader) frameLength() int {
	if r.length > math.MaxInt-r.width {
		return math.MaxInt
	}
	return r.width + r.length
}
