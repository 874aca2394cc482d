package framing

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// must is for constructors whose arguments a test knows to be right.
func must[C Codec](c C, err error) Codec {
	if err != nil {
		panic(err)
	}
	return c
}

// codecs are the ones that every general test runs with; all allow 70,000 bytes.
func codecs() map[string]Codec {
	const limit = 70_000
	return map[string]Codec{
		"fixed3le":    must(NewFixed(3, binary.LittleEndian, limit)),
		"fixed4be":    must(NewFixed(4, binary.BigEndian, limit)),
		"fixed8be":    must(NewFixed(8, binary.BigEndian, limit)),
		"varint":      must(NewVarint(limit)),
		"buffstreams": must(NewBuffStreams(limit)),
	}
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	require.NoError(t, err)
	return b
}

func TestBuffStreams_HeadersEqualGoldenVectors(t *testing.T) {
	raw, err := os.ReadFile("testdata/buffstreams-vectors.json")
	require.NoError(t, err)
	var vectors []struct {
		Max    int    `json:"max_message_size"`
		Width  int    `json:"header_bytes"`
		Length int    `json:"payload_len"`
		Header string `json:"header_hex"`
	}
	require.NoError(t, json.Unmarshal(raw, &vectors))
	require.Len(t, vectors, 401)

	for _, v := range vectors {
		c, err := NewBuffStreams(v.Max)
		require.NoError(t, err)
		header, err := c.AppendHeader(nil, v.Length)
		require.NoError(t, err)
		require.Equal(t, v.Header, hex.EncodeToString(header), "%+v", v)
		length, width, err := c.ParseHeader(header)
		require.NoError(t, err, "%+v", v)
		require.Equal(t, [2]int{v.Length, v.Width}, [2]int{length, width}, "%+v", v)
	}
}

// The original computes the width with floats; around every power of two up to where these are exact both must agree.
func TestBuffStreams_WidthEqualsFloatFormula(t *testing.T) {
	for bit := range 48 {
		for _, limit := range []int{1<<bit - 1, 1 << bit, 1<<bit + 1} {
			if limit < 1 {
				continue
			}
			want := int(math.Ceil((math.Floor(math.Log2(float64(limit)))+1)/8)) + 1
			require.Equal(t, want, buffStreamsWidth(limit), "limit %d", limit)
		}
	}
}

// A limit is good exactly if its own varint fits into the width.
func TestBuffStreams_RefusesLimitsThatItsWidthCannotHold(t *testing.T) {
	var refused []int
	for bit := range 63 {
		for _, limit := range []int{1 << bit, 1<<bit + (1<<bit - 1)} {
			var scratch [binary.MaxVarintLen64]byte
			fits := binary.PutVarint(scratch[:], int64(limit)) <= buffStreamsWidth(limit)
			c, err := NewBuffStreams(limit)
			require.Equal(t, fits, err == nil, "limit %d", limit)
			if err != nil {
				refused = append(refused, limit)
				continue
			}
			header, err := c.AppendHeader(nil, limit)
			require.NoError(t, err)
			length, _, err := c.ParseHeader(header)
			require.NoError(t, err)
			require.Equal(t, limit, length)
		}
	}
	assert.Equal(t, []int{1 << 55, 1<<56 - 1, 1 << 62, math.MaxInt64}, refused)
}

func TestCodec_KnownHeaders(t *testing.T) {
	for _, tc := range []struct {
		codec  Codec
		length int
		header string
	}{
		{must(NewFixed(1, binary.BigEndian, 255)), 255, "ff"},
		{must(NewFixed(2, binary.BigEndian, 1000)), 258, "0102"},
		{must(NewFixed(2, binary.LittleEndian, 1000)), 258, "0201"},
		{must(NewFixed(3, binary.LittleEndian, 1<<24-1)), 0x010203, "030201"},
		{must(NewFixed(4, binary.BigEndian, 1<<20)), 110, "0000006e"},
		{must(NewFixed(4, binary.LittleEndian, 1<<20)), 110, "6e000000"},
		{must(NewFixed(8, binary.BigEndian, math.MaxInt)), math.MaxInt, "7fffffffffffffff"},
		{must(NewFixed(8, binary.LittleEndian, math.MaxInt)), math.MaxInt, "ffffffffffffff7f"},
		{must(NewVarint(1 << 20)), 0, "00"},
		{must(NewVarint(1 << 20)), 127, "7f"},
		{must(NewVarint(1 << 20)), 128, "8001"},
		{must(NewVarint(1 << 20)), 300, "ac02"},
		{must(NewVarint(math.MaxInt)), math.MaxInt, "ffffffffffffffff7f"},
		{must(NewBuffStreams(0)), 3, "060000"},
		{must(NewBuffStreams(0)), 4096, "804000"},
	} {
		t.Run(fmt.Sprintf("%T/%s", tc.codec, tc.header), func(t *testing.T) {
			header, err := tc.codec.AppendHeader([]byte("x"), tc.length)
			require.NoError(t, err)
			assert.Equal(t, "78"+tc.header, hex.EncodeToString(header))
			length, width, err := tc.codec.ParseHeader(append(unhex(t, tc.header), "body"...))
			require.NoError(t, err)
			assert.Equal(t, [2]int{tc.length, len(tc.header) / 2}, [2]int{length, width})
		})
	}
}

func TestCodec_RefusesHostileHeaders(t *testing.T) {
	plain := must(NewBuffStreams(0))
	varint := must(NewVarint(1000))
	fixed := func(width int) Codec { return must(NewFixed(width, binary.BigEndian, 200)) }
	tooLong := func(n uint64, limit int) error { return &LengthError{Length: n, Limit: limit} }
	for _, tc := range []struct {
		name   string
		codec  Codec
		header string
		want   error
	}{
		{"one above the limit", plain, "824000", tooLong(4097, 4096)},
		{"largest of the field", plain, "feff7f", tooLong(1<<20-1, 4096)},
		{"minus one", plain, "010000", ErrNegativeLength},
		{"most negative", plain, "ffff7f", ErrNegativeLength},
		{"padding all ones", plain, "06ffff", ErrNonCanonical},
		{"last padding byte", plain, "060001", ErrNonCanonical},
		{"superfluous varint byte", plain, "860000", ErrNonCanonical},
		{"superfluous varint bytes", plain, "868000", ErrNonCanonical},
		{"varint without end", plain, "808080", ErrHeaderOverflow},
		{"varint one above the limit", varint, "e907", tooLong(1001, 1000)},
		{"varint 2^63", varint, "80808080808080808001", tooLong(1<<63, 1000)},
		{"varint 2^64-1", varint, "ffffffffffffffffff01", tooLong(math.MaxUint64, 1000)},
		{"varint 2^64", varint, "80808080808080808002", ErrHeaderOverflow},
		{"varint of eleven bytes", varint, "8080808080808080808000", ErrHeaderOverflow},
		{"varint zero in two bytes", varint, "8000", ErrNonCanonical},
		{"varint 3 in two bytes", varint, "8300", ErrNonCanonical},
		{"fixed one above the limit", fixed(4), "000000c9", tooLong(201, 200)},
		{"fixed 2^32-1", fixed(4), "ffffffff", tooLong(math.MaxUint32, 200)},
		{"fixed 2^63", fixed(8), "8000000000000000", tooLong(1<<63, 200)},
		{"fixed 2^64-1", fixed(8), "ffffffffffffffff", tooLong(math.MaxUint64, 200)},
		{"fixed 2^63 at the largest limit", must(NewFixed(8, binary.BigEndian, math.MaxInt)), "8000000000000000", tooLong(1<<63, math.MaxInt)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			length, width, err := tc.codec.ParseHeader(unhex(t, tc.header))
			assert.Equal(t, tc.want, err)
			assert.Zero(t, length)
			assert.Zero(t, width)

			r := NewReader(bytes.NewReader(append(unhex(t, tc.header), "some payload"...)), tc.codec)
			for range 2 { // the error is final
				payload, err := r.Next()
				assert.Equal(t, tc.want, err)
				assert.Nil(t, payload)
			}
			assert.False(t, r.Buffered())
		})
	}
}

func TestCodec_EveryProperPrefixOfAHeaderIsIncomplete(t *testing.T) {
	for name, c := range codecs() {
		for _, n := range []int{0, 1, 127, 128, 300, c.MaxLength()} {
			header, err := c.AppendHeader(nil, n)
			require.NoError(t, err)
			for cut := range header {
				_, _, err := c.ParseHeader(header[:cut])
				assert.Equal(t, ErrIncomplete, err, "%s: %x of %x", name, header[:cut], header)
			}
		}
	}
}

func TestCodec_AppendRefusesLengthsOutOfRange(t *testing.T) {
	for name, c := range codecs() {
		t.Run(name, func(t *testing.T) {
			for _, n := range []int{-1, math.MinInt, c.MaxLength() + 1, math.MaxInt} {
				dst, err := c.AppendHeader([]byte("kept"), n)
				assert.Equal(t, &LengthError{Length: uint64(n), Limit: c.MaxLength()}, err)
				assert.Equal(t, "kept", string(dst))
			}
			dst, err := AppendFrame([]byte("kept"), c, make([]byte, c.MaxLength()+1))
			var tooLong *LengthError
			require.ErrorAs(t, err, &tooLong)
			assert.Equal(t, "kept", string(dst))
			assert.ErrorContains(t, err, "raise the maximum length at both ends")

			_, err = AppendFrame(nil, c, make([]byte, c.MaxLength()))
			assert.NoError(t, err)
		})
	}
}

func TestCodec_ConstructorsRefuse(t *testing.T) {
	for name, build := range map[string]func() (Codec, error){
		"fixed of 0 bytes":      func() (Codec, error) { return NewFixed(0, binary.BigEndian, 1) },
		"fixed of 9 bytes":      func() (Codec, error) { return NewFixed(9, binary.BigEndian, 1) },
		"no byte order":         func() (Codec, error) { return NewFixed(4, nil, 1) },
		"fixed without limit":   func() (Codec, error) { return NewFixed(4, binary.BigEndian, 0) },
		"limit over one byte":   func() (Codec, error) { return NewFixed(1, binary.BigEndian, 256) },
		"limit over four bytes": func() (Codec, error) { return NewFixed(4, binary.BigEndian, 1<<32) },
		"limit over 7 bytes":    func() (Codec, error) { return NewFixed(7, binary.LittleEndian, 1<<56) },
		"varint without limit":  func() (Codec, error) { return NewVarint(0) },
		"varint below zero":     func() (Codec, error) { return NewVarint(-1) },
		"buffstreams negative":  func() (Codec, error) { return NewBuffStreams(-1) },
	} {
		_, err := build()
		assert.ErrorContains(t, err, "framing: ", name)
	}
	c, err := NewBuffStreams(0)
	require.NoError(t, err)
	assert.Equal(t, DefaultMaxLength, c.MaxLength())
}

func TestCodec_ZeroValuesRefuseEverything(t *testing.T) {
	for _, c := range []Codec{Fixed{}, Varint{}, BuffStreams{}} {
		_, err := AppendFrame(nil, c, nil)
		assert.ErrorIs(t, err, errZeroCodec, "%T", c)
		_, err = NewReader(bytes.NewReader(make([]byte, 64)), c).Next()
		assert.ErrorIs(t, err, errZeroCodec, "%T", c)
	}
}

func TestReader_TruncationMatchesUnexpectedEOF(t *testing.T) {
	assert.ErrorIs(t, ErrTruncatedHeader, io.ErrUnexpectedEOF)
	assert.ErrorIs(t, ErrTruncatedBody, io.ErrUnexpectedEOF)
	assert.NotErrorIs(t, ErrTruncatedHeader, ErrTruncatedBody)
}

func TestAppendFrame_DoesNotAllocateWhereThereIsRoom(t *testing.T) {
	payload := make([]byte, 110)
	for name, c := range codecs() {
		frame, err := AppendFrame(nil, c, payload)
		require.NoError(t, err)
		exact := make([]byte, 0, len(frame))
		assert.Zero(t, testing.AllocsPerRun(100, func() { _, _ = AppendFrame(exact, c, payload) }), name)
	}
}
