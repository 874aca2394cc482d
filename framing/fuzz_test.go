package framing

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

// fuzzLimit is small enough for the fuzzer to reach and larger than what a reader starts with.
const fuzzLimit = 300_000

// dialect is a codec with an independent reading of its headers: how many bytes to read first, whether one more is
// needed, and what whole ones mean.
type dialect struct {
	codec Codec
	first int
	more  func(header []byte) bool
	value func(header []byte) (uint64, error)
}

func dialects() []dialect {
	all := []dialect{{
		codec: must(NewVarint(fuzzLimit)), first: 1,
		more: func(h []byte) bool { return h[len(h)-1] >= 0x80 && len(h) < binary.MaxVarintLen64 },
		value: func(h []byte) (uint64, error) {
			v, n := binary.Uvarint(h)
			if n <= 0 {
				return 0, ErrHeaderOverflow
			}
			return v, canonical(h, binary.AppendUvarint(nil, v))
		},
	}}
	for _, limit := range []int{200, DefaultMaxLength, fuzzLimit} {
		all = append(all, dialect{
			codec: must(NewBuffStreams(limit)), first: buffStreamsWidth(limit),
			value: func(h []byte) (uint64, error) {
				v, n := binary.Varint(h)
				if n <= 0 {
					return 0, ErrHeaderOverflow
				}
				want := make([]byte, max(len(h), binary.MaxVarintLen64))
				binary.PutVarint(want, v)
				if err := canonical(h, want[:len(h)]); err != nil {
					return 0, err
				}
				if v < 0 {
					return 0, ErrNegativeLength
				}
				return uint64(v), nil
			},
		})
	}
	for _, width := range []int{1, 2, 3, 4, 7, 8} {
		for _, order := range []binary.ByteOrder{binary.BigEndian, binary.LittleEndian} {
			limit := min(fuzzLimit, 1<<min(8*width-1, 30))
			all = append(all, dialect{
				codec: must(NewFixed(width, order, limit)), first: width,
				value: func(h []byte) (uint64, error) {
					whole := make([]byte, 8)
					if order == binary.BigEndian {
						copy(whole[8-len(h):], h)
					} else {
						copy(whole, h)
					}
					return order.Uint64(whole), nil
				},
			})
		}
	}
	return all
}

func canonical(got, want []byte) error {
	if !bytes.Equal(got, want) {
		return ErrNonCanonical
	}
	return nil
}

// referenceNext is the simplest reader that can be.
func referenceNext(src io.Reader, d dialect) ([]byte, error) {
	header := make([]byte, d.first, binary.MaxVarintLen64)
	n, err := io.ReadFull(src, header)
	for err == nil && d.more != nil && d.more(header) {
		header = append(header, 0)
		_, err = io.ReadFull(src, header[len(header)-1:])
		n = 1
	}
	if err != nil && n == 0 && len(header) == d.first {
		return nil, io.EOF
	}
	if err != nil {
		return nil, ErrTruncatedHeader
	}
	length, err := d.value(header)
	if err != nil {
		return nil, err
	}
	if length > uint64(d.codec.MaxLength()) {
		return nil, &LengthError{Length: length, Limit: d.codec.MaxLength()}
	}
	payload := make([]byte, length)
	if _, err := io.ReadFull(src, payload); err != nil {
		return nil, ErrTruncatedBody
	}
	return payload, nil
}

// chunkedSource cuts a stream as the fuzzer says: each byte of chunks is the size of a read in units of 1, 16 or 4096;
// 0 is a time-out.
type chunkedSource struct {
	data, chunks []byte
	at           int
}

func (c *chunkedSource) Read(p []byte) (int, error) {
	if len(c.data) == 0 {
		return 0, io.EOF
	}
	size := len(p)
	if len(c.chunks) > 0 {
		chunk := c.chunks[c.at%len(c.chunks)]
		c.at++
		if chunk == 0 && c.at <= len(c.chunks) { // once around only, or it never ends
			return 0, os.ErrDeadlineExceeded
		}
		size = int(chunk&0x3f+1) * []int{1, 16, 4096, 4096}[chunk>>6]
	}
	n := copy(p[:min(len(p), size)], c.data)
	c.data = c.data[n:]
	return n, nil
}

func FuzzParseHeader(f *testing.F) {
	for _, seed := range []string{
		"\x82\x40\x00", "\x01\x00\x00", "\x06\xff\xff", "\x80\x80\x80", "\x86\x00\x00", "\x06\x00\x00", "\x80\x40\x00",
		"\x80\x00\x00\x00\x00\x00\x00\x00", "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "\x00\x00\x00\x6e", "",
	} {
		f.Add([]byte(seed))
	}
	all := dialects()
	f.Fuzz(func(t *testing.T, src []byte) {
		for _, d := range all {
			checkHeader(t, d, src)
		}
	})
}

func checkHeader(t *testing.T, d dialect, src []byte) {
	t.Helper()
	name := fmt.Sprintf("%T %+v", d.codec, d.codec)
	length, width, err := d.codec.ParseHeader(src)
	if err != nil {
		require.Zero(t, length+width, name)
	}
	if errors.Is(err, ErrIncomplete) {
		require.Less(t, len(src), binary.MaxVarintLen64, name)
		return
	}
	if err == nil {
		require.LessOrEqual(t, length, d.codec.MaxLength(), name)
		header, err := d.codec.AppendHeader(nil, length)
		require.NoError(t, err, name)
		require.Equal(t, src[:width], header, name)
	}
	for cut := range width { // the prefixes of a good header are incomplete
		_, _, err := d.codec.ParseHeader(src[:cut])
		require.Equal(t, ErrIncomplete, err, name)
	}
}

func FuzzReader(f *testing.F) {
	all := dialects()
	for i, d := range all {
		stream := frame(f, d.codec, payloadOf(100, i))
		stream = append(stream, frame(f, d.codec, nil)...)
		stream = append(stream, frame(f, d.codec, payloadOf(min(d.codec.MaxLength(), 9000), i))...)
		f.Add(uint8(i), []byte{}, stream)
		f.Add(uint8(i), []byte{0, 3, 0, 70, 1}, stream[:len(stream)-1])
		f.Add(uint8(i), []byte{200, 7}, append(stream, "\x82\x40\x00\x00\xff\xff\xff\xff\xff\xff\xff"...))
	}
	f.Fuzz(func(t *testing.T, which uint8, chunks, stream []byte) {
		compareWithReference(t, all[int(which)%len(all)], chunks, stream)
	})
}

// What the fuzzer does not reach in a short run: streams of large frames.
func TestReader_EqualsReferenceOnLargeFrames(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	for _, d := range dialects() {
		chunks := make([]byte, 40)
		for i := range chunks {
			chunks[i] = byte(random.Uint32())
		}
		var stream []byte
		for i := range 12 {
			n := random.IntN(1 << (1 + random.IntN(18)))
			stream = append(stream, frame(t, d.codec, payloadOf(min(n, d.codec.MaxLength()), i))...)
		}
		for _, cut := range []int{0, 1, 5000} {
			compareWithReference(t, d, chunks, stream[:max(0, len(stream)-cut)])
		}
	}
}

func compareWithReference(t *testing.T, d dialect, chunks, stream []byte) {
	t.Helper()
	reference := bytes.NewReader(stream)
	bounded := &boundedSource{t: t, src: &chunkedSource{data: stream, chunks: chunks}}
	r := NewReader(bounded, d.codec)
	bounded.r = r
	var owned, wanted [][]byte
	for i := 0; ; i++ {
		want, wantErr := referenceNext(reference, d)
		ready := r.Buffered()
		consumed := bounded.received
		got, err := r.Next()
		if ready {
			require.NoError(t, err)
			require.Equal(t, consumed, bounded.received, "a buffered frame needs no read")
		}
		for errors.Is(err, os.ErrDeadlineExceeded) {
			got, err = r.Next()
		}
		require.Equal(t, wantErr, err)
		if err != nil {
			break
		}
		require.True(t, bytes.Equal(want, got))
		require.Equal(t, len(got), cap(got))
		if i%2 == 0 {
			owned, wanted = append(owned, r.Take()), append(wanted, want)
		}
	}
	for i := range owned {
		require.True(t, bytes.Equal(wanted[i], owned[i]), "taken payload %d was overwritten", i)
	}
}
