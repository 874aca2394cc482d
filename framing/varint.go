package framing

import "encoding/binary"

// Varint is the convention of length-delimited protocol buffers: the length as an unsigned varint of 1 to 10 bytes.
// Only the shortest form is accepted.
type Varint struct {
	maxLength int
}

// NewVarint returns the codec. It refuses a maxLength below 1.
func NewVarint(maxLength int) (Varint, error) {
	if err := checkLimit(maxLength); err != nil {
		return Varint{}, err
	}
	return Varint{maxLength: maxLength}, nil
}

// MaxLength implements Codec.
func (v Varint) MaxLength() int { return v.maxLength }

// AppendHeader implements Codec.
func (v Varint) AppendHeader(dst []byte, n int) ([]byte, error) {
	if v.maxLength == 0 {
		return dst, errZeroCodec
	}
	if err := checkLength(n, v.maxLength); err != nil {
		return dst, err
	}
	return binary.AppendUvarint(dst, uint64(n)), nil
}

// ParseHeader implements Codec.
func (v Varint) ParseHeader(src []byte) (length, width int, err error) {
	if v.maxLength == 0 {
		return 0, 0, errZeroCodec
	}
	n, width, err := parseUvarint(src)
	if err != nil {
		return 0, 0, err
	}
	if n > uint64(v.maxLength) {
		return 0, 0, &LengthError{Length: n, Limit: v.maxLength}
	}
	return int(n), width, nil
}

// parseUvarint differs from binary.Uvarint in that it refuses superfluous bytes: one length has one encoding, so that
// what was parsed can be compared and re-encoded byte by byte.
func parseUvarint(src []byte) (v uint64, width int, err error) {
	for i, b := range src {
		if i == binary.MaxVarintLen64-1 && b > 1 {
			return 0, 0, ErrHeaderOverflow
		}
		if b < 0x80 {
			if b == 0 && i > 0 {
				return 0, 0, ErrNonCanonical
			}
			return v | uint64(b)<<(7*i), i + 1, nil
		}
		v |= uint64(b&0x7f) << (7 * i)
	}
	return 0, 0, ErrIncomplete
}
