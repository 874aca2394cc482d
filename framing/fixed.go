package framing

import (
	"encoding/binary"
	"fmt"
)

// Fixed is a header of 1 to 8 bytes that hold the length as an unsigned integer. Four bytes, big endian, is the default
// of the acked protocol.
type Fixed struct {
	width     int
	little    bool
	maxLength int
}

// NewFixed returns the codec with a header of width bytes in the given order, which is binary.BigEndian or
// binary.LittleEndian. It refuses a maxLength below 1 or too large for the width.
func NewFixed(width int, order binary.ByteOrder, maxLength int) (Fixed, error) {
	if width < 1 || width > 8 {
		return Fixed{}, fmt.Errorf("framing: fixed header of %d bytes: must be 1 to 8", width)
	}
	if order != binary.BigEndian && order != binary.LittleEndian {
		return Fixed{}, fmt.Errorf("framing: byte order %v: must be binary.BigEndian or binary.LittleEndian", order)
	}
	if err := checkLimit(maxLength); err != nil {
		return Fixed{}, err
	}
	if width < 8 && uint64(maxLength) >= 1<<(8*width) {
		return Fixed{}, fmt.Errorf("framing: maximum length %d does not fit into a header of %d bytes: use a wider header", maxLength, width)
	}
	return Fixed{width: width, little: order == binary.LittleEndian, maxLength: maxLength}, nil
}

// MaxLength implements Codec.
func (f Fixed) MaxLength() int { return f.maxLength }

// AppendHeader implements Codec.
func (f Fixed) AppendHeader(dst []byte, n int) ([]byte, error) {
	if f.width == 0 {
		return dst, errZeroCodec
	}
	if err := checkLength(n, f.maxLength); err != nil {
		return dst, err
	}
	if f.width == 4 && !f.little {
		return binary.BigEndian.AppendUint32(dst, uint32(n)), nil
	}
	var b [8]byte
	if f.little {
		binary.LittleEndian.PutUint64(b[:], uint64(n))
		return append(dst, b[:f.width]...), nil
	}
	binary.BigEndian.PutUint64(b[:], uint64(n))
	return append(dst, b[8-f.width:]...), nil
}

// ParseHeader implements Codec.
func (f Fixed) ParseHeader(src []byte) (length, width int, err error) {
	if len(src) < f.width {
		return 0, 0, ErrIncomplete
	}
	var v uint64
	if f.width == 4 && !f.little {
		v = uint64(binary.BigEndian.Uint32(src))
	} else if v, err = f.parse(src); err != nil {
		return 0, 0, err
	}
	if v > uint64(f.maxLength) {
		return 0, 0, &LengthError{Length: v, Limit: f.maxLength}
	}
	return int(v), f.width, nil
}

// parse reads the length from src, which must have a whole header.
func (f Fixed) parse(src []byte) (v uint64, err error) {
	if f.width == 0 {
		return 0, errZeroCodec
	}
	for i, b := range src[:f.width] {
		if f.little {
			v |= uint64(b) << (8 * i)
		} else {
			v = v<<8 | uint64(b)
		}
	}
	return v, nil
}
