package framing

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
)

// DefaultMaxLength is the limit, in bytes, of a BuffStreams codec whose maxLength is 0.
const DefaultMaxLength = 4096

// BuffStreams is the header of BuffStreams v1.0.0 to v2.0.0, byte for byte: the length as a zigzag varint in a field
// that is padded with zeros to a width which follows from the limit.
//
// Both ends must therefore agree on the limit: with limits of different widths a receiver takes payload for headers.
// Padding that is not zero is refused, so most such streams fail at their first frame instead of being misread.
type BuffStreams struct {
	width     int
	maxLength int
}

// NewBuffStreams returns the codec for a limit of maxLength bytes; 0 means DefaultMaxLength. It refuses a negative
// limit, and the limits from 2^55 to 2^56-1 and from 2^62: their width is a byte short of their largest lengths.
func NewBuffStreams(maxLength int) (BuffStreams, error) {
	if maxLength == 0 {
		maxLength = DefaultMaxLength
	}
	if err := checkLimit(maxLength); err != nil {
		return BuffStreams{}, err
	}
	width := buffStreamsWidth(maxLength)
	// Zigzag needs one bit more than the length, and a varint byte carries 7.
	if need := (bits.Len(uint(maxLength)) + 1 + 6) / 7; need > width {
		return BuffStreams{}, fmt.Errorf("framing: maximum length %d needs %d header bytes, BuffStreams has %d for it: lower it",
			maxLength, need, width)
	}
	return BuffStreams{width: width, maxLength: maxLength}, nil
}

// buffStreamsWidth is ceil((floor(log2(maxLength))+1)/8)+1 without floats.
func buffStreamsWidth(maxLength int) int {
	return (bits.Len(uint(maxLength))+7)/8 + 1
}

// MaxLength implements Codec.
func (b BuffStreams) MaxLength() int { return b.maxLength }

// AppendHeader implements Codec.
func (b BuffStreams) AppendHeader(dst []byte, n int) ([]byte, error) {
	if b.width == 0 {
		return dst, errZeroCodec
	}
	if err := checkLength(n, b.maxLength); err != nil {
		return dst, err
	}
	end := len(dst) + b.width
	dst = binary.AppendVarint(dst, int64(n))
	for len(dst) < end {
		dst = append(dst, 0)
	}
	return dst, nil
}

// ParseHeader implements Codec.
func (b BuffStreams) ParseHeader(src []byte) (length, width int, err error) {
	if len(src) < b.width {
		return 0, 0, ErrIncomplete
	}
	if b.width == 0 {
		return 0, 0, errZeroCodec
	}
	header := src[:b.width]
	zigzag, used, err := parseUvarint(header)
	if errors.Is(err, ErrIncomplete) {
		err = ErrHeaderOverflow // the field is whole, the varint is not
	}
	if err != nil {
		return 0, 0, err
	}
	for _, pad := range header[used:] {
		if pad != 0 {
			return 0, 0, ErrNonCanonical
		}
	}
	if zigzag&1 != 0 {
		return 0, 0, ErrNegativeLength
	}
	if n := zigzag >> 1; n > uint64(b.maxLength) {
		return 0, 0, &LengthError{Length: n, Limit: b.maxLength}
	}
	return int(zigzag >> 1), b.width, nil
}
