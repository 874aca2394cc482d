package framing

import (
	"errors"
	"io"
)

const (
	startSize  = 512       // of a new reader's buffer
	modestSize = 64 << 10  // what follows a buffer that was above streamSize
	streamSize = 256 << 10 // above this only a frame that needs it grows the buffer

	// minHandOver is the smallest payload for which Take gives the buffer away: below it a copy is cheaper than a new
	// buffer.
	minHandOver = 16 << 10

	// minDirect is the smallest payload that is read into memory of its own, as soon as the connection has brought one
	// as large before: Take need not copy it. Smaller ones may be many messages, of which each is copied anyway.
	minDirect = 64 << 10

	// shrinkAfter is how many rounds in a row have to leave three quarters of the buffer unused before it is replaced
	// by a small one.
	shrinkAfter = 4

	maxEmptyReads = 100
)

var errBadRead = errors.New("framing: source reported an impossible count of read bytes")

// Reader cuts a byte stream into frames. It is not safe for concurrent use.
//
// Its buffer starts at 512 bytes and about doubles only when it is full, so it never exceeds 9/4 of the bytes received,
// whatever lengths are declared. Reads that fill it let it grow up to 256 KiB; only a frame that is larger than that
// makes it grow further, while its bytes arrive, and after that frame it falls back to 64 KiB.
//
// A payload of 64 KiB or more that is no larger than one before it is read into memory of its own, which Take hands
// over: what a peer has sent once, it may declare. So the reader never holds more than 13/4 of the bytes received.
//
// An idle connection does not keep a big buffer: after four rounds in a row that used at most a quarter of it (pings,
// say) it is 512 bytes again, and a Read that fails while no frame has begun, as with a read deadline, frees it at once
// until the next call of Next.
type Reader struct {
	src   io.Reader
	codec Codec

	buf  []byte
	r, w int // buf[r:w] is received and not yet returned

	width, length int    // of the frame in progress; width 0: its header is not known yet
	start, end    int    // buf[start:end] is the payload of the last Next; start < 0: none
	own           []byte // the payload of the frame in progress, or of the last Next, where that is not in buf
	got           int    // own[:got] is received; the frame is in progress while width > 0
	largest       int    // payload so far
	small         int    // rounds in a row that left most of the buffer unused

	srcErr error // came together with bytes; returned when these are used up
	err    error // the codec refused a header: the stream is out of step for good
}

// NewReader returns a Reader of the frames in src. It allocates its buffer with the first Next.
func NewReader(src io.Reader, c Codec) *Reader {
	return &Reader{src: src, codec: c, start: -1}
}

// SetCodec changes the codec from the next header on that has not been read yet: to raise the limit after
// authentication, for example. A frame whose header was accepted before stays accepted.
func (r *Reader) SetCodec(c Codec) { r.codec = c }

// Next returns the payload of the next frame. It is a view into the buffer, valid until the next call of Next or Take,
// with a capacity equal to its length; Take makes it the caller's. It reads from the source only if the buffer does not
// hold a whole frame.
//
// It returns io.EOF if the stream ended between frames, ErrTruncatedHeader or ErrTruncatedBody if it ended within one.
// An error of the codec is final: every later call returns it. Any other error of the source is returned as it is and
// loses no bytes: after a time-out Next goes on where it stopped, also within a frame.
func (r *Reader) Next() ([]byte, error) {
	if r.width == 0 && r.err == nil {
		held := r.w - r.r
		length, width, err := r.codec.ParseHeader(r.buf[r.r:r.w])
		if err == nil && width > 0 && width <= held && uint(length) <= uint(held-width) {
			return r.emit(width, length), nil
		}
	}
	return r.nextSlow()
}

// nextSlow reads until a frame is whole.
func (r *Reader) nextSlow() ([]byte, error) {
	r.start = -1 // reading moves the buffer
	if r.width == 0 {
		r.dropOwn()
	}
	for r.err == nil {
		if r.width == 0 {
			r.parseHeader()
		}
		if r.err != nil {
			break
		}
		if r.own == nil && r.width > 0 && r.length <= r.w-r.r-r.width {
			return r.emit(r.width, r.length), nil
		}
		if r.own != nil && r.got == r.length {
			r.width = 0
			return r.own[:r.length:r.length], nil
		}
		read := r.fill
		if r.direct() {
			read = r.fillOwn
		}
		if err := read(); err != nil {
			return nil, r.sourceError(err)
		}
	}
	return nil, r.err
}

// parseHeader sets width and length if the header is whole, err if it is wrong.
func (r *Reader) parseHeader() {
	held := r.w - r.r
	length, width, err := r.codec.ParseHeader(r.buf[r.r:r.w])
	switch {
	case errors.Is(err, ErrIncomplete) && held < maxHeaderWidth:
	case errors.Is(err, ErrIncomplete):
		r.err = errBadCodec
	case err != nil:
		r.err = err
	case width < 1 || width > held || length < 0:
		r.err = errBadCodec
	default:
		r.width, r.length = width, length
	}
}

// emit returns the payload of the frame at r, which must be whole.
func (r *Reader) emit(width, length int) []byte {
	r.dropOwn()
	r.largest = max(r.largest, length)
	r.start = r.r + width
	r.end = r.start + length
	r.r, r.width = r.end, 0
	return r.buf[r.start:r.end:r.end]
}

// sourceError tells the three ends of a stream apart, and frees the buffer of a reader that waits for nothing.
func (r *Reader) sourceError(err error) error {
	if r.r == r.w && r.own == nil {
		if len(r.buf) > startSize {
			r.drop()
		}
		return err
	}
	if err != io.EOF { //nolint:errorlint // what wraps io.EOF is another error of the source
		return err
	}
	if r.width == 0 {
		return ErrTruncatedHeader
	}
	return ErrTruncatedBody
}

// Take returns the payload of the last Next as memory that the caller owns: a copy, or, if a large payload fills most
// of the buffer, the buffer itself, of which the reader then starts a new one. It returns nil if there is no such
// payload: before the first Next, after an error, after another Take.
func (r *Reader) Take() []byte {
	if own := r.own; own != nil && r.width == 0 {
		r.own = nil
		return own
	}
	if r.start < 0 {
		return nil
	}
	payload := r.buf[r.start:r.end:r.end]
	r.start = -1
	if len(payload) < minHandOver || len(payload) < len(r.buf)/4*3 {
		owned := make([]byte, len(payload))
		copy(owned, payload)
		return owned
	}
	r.replace(r.modest())
	return payload
}

// Buffered reports whether Next would return a payload without reading from the source. It is false if Next would fail.
func (r *Reader) Buffered() bool {
	if r.err != nil || r.width > 0 { // a frame is in progress only while it is not whole
		return false
	}
	held := r.w - r.r
	length, width, err := r.codec.ParseHeader(r.buf[r.r:r.w])
	return err == nil && width > 0 && width <= held && uint(length) <= uint(held-width)
}
