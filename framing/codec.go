package framing

import (
	"errors"
	"fmt"
	"io"
	"slices"
)

// maxHeaderWidth bounds the header of every Codec, also of foreign ones: it keeps a Reader from collecting bytes for a
// header that never ends.
const maxHeaderWidth = 16

// Codec translates between the length of a payload, in bytes, and the header that announces it. A header is at least 1
// and at most 16 bytes wide.
//
// The codecs of this package are immutable values and safe for concurrent use; make them with their constructors, a
// zero value refuses every frame.
type Codec interface {
	// MaxLength is the largest payload length that is accepted, in bytes.
	MaxLength() int

	// AppendHeader appends the header of a payload of n bytes to dst. It returns dst unchanged and a *LengthError if n
	// is negative or larger than MaxLength.
	AppendHeader(dst []byte, n int) ([]byte, error)

	// ParseHeader reads the header at the start of src: the length of the payload and the width of the header. It
	// returns ErrIncomplete if src ends before the header does. After any other error the stream is out of step and of
	// no more use.
	ParseHeader(src []byte) (length, width int, err error)
}

var (
	// ErrIncomplete says that more bytes are needed to know the header.
	ErrIncomplete = errors.New("framing: header incomplete, more bytes are needed")

	// ErrTruncatedHeader says that the stream ended inside a header. It also matches io.ErrUnexpectedEOF.
	ErrTruncatedHeader = fmt.Errorf("framing: stream ended inside a header: %w", io.ErrUnexpectedEOF)

	// ErrTruncatedBody says that the stream ended between a header and the end of its payload. It also matches
	// io.ErrUnexpectedEOF.
	ErrTruncatedBody = fmt.Errorf("framing: stream ended inside a payload: %w", io.ErrUnexpectedEOF)

	// ErrNegativeLength says that a signed header held a length below zero.
	ErrNegativeLength = errors.New("framing: header holds a negative length")

	// ErrNonCanonical says that a header was not the one way to write its length: a varint with superfluous bytes, or
	// padding that is not zero. The usual reason is a peer with another header width: compare the maximum lengths and
	// codecs of both ends.
	ErrNonCanonical = errors.New("framing: header is not in canonical form: check that both ends use the same codec and maximum length")

	// ErrHeaderOverflow says that a varint did not end within its header or did not fit into 64 bits.
	ErrHeaderOverflow = errors.New("framing: varint does not end within its header: check that both ends use the same codec and maximum length")
)

var (
	errZeroCodec = errors.New("framing: codec is not initialized, make it with its constructor")
	errBadCodec  = errors.New("framing: codec reported an impossible header")
)

// LengthError reports a payload that is larger than the codec's limit.
type LengthError struct {
	Length uint64 // what was declared or offered, in bytes
	Limit  int    // the codec's MaxLength
}

func (e *LengthError) Error() string {
	return fmt.Sprintf("framing: payload of %d bytes exceeds the limit of %d: raise the maximum length at both ends or send less",
		e.Length, e.Limit)
}

// checkLength guards AppendHeader: a negative n becomes a huge uint64.
func checkLength(n, limit int) error {
	if n < 0 || n > limit {
		return &LengthError{Length: uint64(n), Limit: limit}
	}
	return nil
}

// checkLimit guards the constructors. A limit of zero would allow empty frames only: it is a forgotten setting.
func checkLimit(maxLength int) error {
	if maxLength < 1 {
		return fmt.Errorf("framing: maximum length %d: must be at least 1", maxLength)
	}
	return nil
}

// AppendFrame appends header and payload to dst. It returns dst unchanged and the error of the codec if that refuses
// the length, before it allocates. It does not allocate if dst has room for the frame.
func AppendFrame(dst []byte, c Codec, payload []byte) ([]byte, error) {
	room := cap(dst) - len(dst)
	if room <= len(payload) && len(payload) <= c.MaxLength() {
		dst = slices.Grow(dst, maxHeaderWidth+len(payload)) // one allocation, not two
	}
	out, err := c.AppendHeader(dst, len(payload))
	if err != nil {
		return dst, err
	}
	return append(out, payload...), nil
}
