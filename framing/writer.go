package framing

import (
	"errors"
	"io"
)

// keepWriteBuffer is the largest buffer that a Writer keeps after a Flush.
const keepWriteBuffer = 256 << 10

var errBadWrite = errors.New("framing: destination reported an impossible count of written bytes")

// Writer collects frames and writes them together. It is not safe for concurrent use. Nothing bounds what it collects:
// its owner flushes when Buffered says that it is enough.
type Writer struct {
	dst   io.Writer
	codec Codec
	buf   []byte
	err   error // of the write that failed; half a frame may be on the wire
}

// NewWriter returns a Writer that frames with c. It allocates with the first Append.
func NewWriter(dst io.Writer, c Codec) *Writer {
	return &Writer{dst: dst, codec: c}
}

// Append queues a frame; payload is copied. It queues nothing and stays usable if the codec refuses the length.
func (w *Writer) Append(payload []byte) error {
	if w.err != nil {
		return w.err
	}
	buf, err := AppendFrame(w.buf, w.codec, payload)
	w.buf = buf
	return err
}

// Buffered returns how many bytes, headers included, the next Flush writes.
func (w *Writer) Buffered() int { return len(w.buf) }

// Flush writes all queued frames with one Write, or nothing if there are none. After a failed or short write the stream
// is broken in the middle of a frame: what was queued is dropped, and this and every later call of Append and Flush
// returns the same error.
func (w *Writer) Flush() error {
	if w.err != nil || len(w.buf) == 0 {
		return w.err
	}
	n, err := w.dst.Write(w.buf)
	switch {
	case n < 0 || n > len(w.buf):
		err = errBadWrite
	case err == nil && n < len(w.buf):
		err = io.ErrShortWrite
	}
	if w.err = err; err != nil || cap(w.buf) > keepWriteBuffer {
		w.buf = nil
		return err
	}
	w.buf = w.buf[:0]
	return nil
}
