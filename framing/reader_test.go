package framing

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// step is one answer of a scripted source.
type step struct {
	data []byte
	err  error
}

// script answers each Read with the next step; a step larger than the room is answered in parts, its error with the
// last. It ends with io.EOF.
type script struct {
	steps []step
	reads []int // the room of each Read
}

func (s *script) Read(p []byte) (int, error) {
	s.reads = append(s.reads, len(p))
	if len(s.steps) == 0 {
		return 0, io.EOF
	}
	n := copy(p, s.steps[0].data)
	if s.steps[0].data = s.steps[0].data[n:]; len(s.steps[0].data) > 0 {
		return n, nil
	}
	err := s.steps[0].err
	s.steps = s.steps[1:]
	return n, err
}

// payloadOf returns n bytes that tell where they are and whose they are.
func payloadOf(n, seed int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(i*7 + i>>8 + seed)
	}
	return p
}

func frame(t testing.TB, c Codec, payload []byte) []byte {
	t.Helper()
	f, err := AppendFrame(nil, c, payload)
	require.NoError(t, err)
	return f
}

func fixed4(limit int) Codec { return must(NewFixed(4, binary.BigEndian, limit)) }

func TestReader_ReturnsWhatWasFramed(t *testing.T) {
	sizes := []int{0, 1, 110, 0, 0, 4091, 4096, 16_384, 70_000, 3, 65_536, 127, 128, 50_000}
	random := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		sizes = append(sizes, random.IntN(300))
	}
	chunked := func(src io.Reader) io.Reader {
		return readFunc(func(p []byte) (int, error) { return src.Read(p[:min(len(p), 1+random.IntN(9000))]) })
	}
	for name, c := range codecs() {
		var stream []byte
		for i, n := range sizes {
			stream = append(stream, frame(t, c, payloadOf(n, i))...)
		}
		for how, wrap := range map[string]func(io.Reader) io.Reader{
			"whole":         func(r io.Reader) io.Reader { return r },
			"one byte":      iotest.OneByteReader,
			"random chunks": chunked,
			"half":          iotest.HalfReader,
			"data and EOF":  iotest.DataErrReader,
		} {
			t.Run(name+"/"+how, func(t *testing.T) {
				r := NewReader(wrap(bytes.NewReader(stream)), c)
				for i, n := range sizes {
					payload, err := r.Next()
					require.NoError(t, err)
					require.True(t, bytes.Equal(payloadOf(n, i), payload), "frame %d", i)
					require.NotNil(t, payload)
					require.Equal(t, n, cap(payload))
				}
				for range 2 {
					_, err := r.Next()
					require.Equal(t, io.EOF, err)
				}
			})
		}
	}
}

type readFunc func([]byte) (int, error)

func (f readFunc) Read(p []byte) (int, error) { return f(p) }

func TestReader_EveryTruncationHasItsOwnEnd(t *testing.T) {
	for name, c := range codecs() {
		for _, n := range []int{1, 130, 5000} {
			header, err := c.AppendHeader(nil, n)
			require.NoError(t, err)
			whole := frame(t, c, payloadOf(n, 0))
			for cut := range whole {
				r := NewReader(io.MultiReader(bytes.NewReader(whole), bytes.NewReader(whole[:cut])), c)
				_, err := r.Next()
				require.NoError(t, err)
				want := ErrTruncatedBody
				switch {
				case cut == 0:
					want = io.EOF
				case cut < len(header):
					want = ErrTruncatedHeader
				}
				for range 2 {
					_, err = r.Next()
					require.Equal(t, want, err, "%s: %d of %d bytes", name, cut, len(whole))
				}
			}
		}
	}
}

func TestReader_TimeoutLosesNothing(t *testing.T) {
	for name, c := range codecs() {
		stream := append(frame(t, c, payloadOf(130, 1)), frame(t, c, payloadOf(9000, 2))...)
		for _, withData := range []bool{true, false} {
			src := &script{}
			for at := 0; at < len(stream); at += 97 {
				part := stream[at:min(at+97, len(stream))]
				if withData {
					src.steps = append(src.steps, step{part, os.ErrDeadlineExceeded})
				} else {
					src.steps = append(src.steps, step{part, nil}, step{nil, os.ErrDeadlineExceeded})
				}
			}
			r := NewReader(src, c)
			var got [][]byte
			for len(got) < 2 {
				payload, err := r.Next()
				if err != nil {
					require.ErrorIs(t, err, os.ErrDeadlineExceeded, name)
					require.Nil(t, r.Take())
					continue
				}
				got = append(got, r.Take())
				require.Len(t, got[len(got)-1], len(payload))
			}
			require.Equal(t, [][]byte{payloadOf(130, 1), payloadOf(9000, 2)}, got)
		}
	}
}

func TestReader_ReadsOncePerRefill(t *testing.T) {
	c := fixed4(1 << 20)
	f := frame(t, c, payloadOf(96, 0))
	src := &script{steps: []step{{bytes.Repeat(f, 10), nil}, {f, nil}, {f[:50], nil}, {f[50:], nil}}}
	r := NewReader(src, c)
	for range 12 {
		_, err := r.Next()
		require.NoError(t, err)
	}
	assert.Equal(t, []int{512, 1012, 1024, 1024, 974}, src.reads, "the first one fills the buffer, which then grows")
}

func TestReader_Buffered(t *testing.T) {
	c := fixed4(1 << 20)
	f := frame(t, c, payloadOf(100, 0))
	bad := []byte{0xff, 0xff, 0xff, 0xff}
	src := &script{steps: []step{{append(append([]byte{}, f...), f...), nil}, {f[:2], os.ErrDeadlineExceeded},
		{f[2:80], os.ErrDeadlineExceeded}, {append(f[80:len(f):len(f)], bad...), nil}}}
	r := NewReader(src, c)
	require.False(t, r.Buffered(), "nothing read yet")
	next := func() error { _, err := r.Next(); return err }

	require.NoError(t, next())
	require.True(t, r.Buffered())
	require.NoError(t, next())
	require.False(t, r.Buffered(), "empty")
	require.ErrorIs(t, next(), os.ErrDeadlineExceeded)
	require.False(t, r.Buffered(), "part of a header")
	require.ErrorIs(t, next(), os.ErrDeadlineExceeded)
	require.False(t, r.Buffered(), "part of a body")
	require.NoError(t, next())
	require.False(t, r.Buffered(), "a header that is refused")
	var tooLong *LengthError
	require.ErrorAs(t, next(), &tooLong)
	require.False(t, r.Buffered())
}

func TestReader_SetCodecAppliesToTheNextFrame(t *testing.T) {
	small, large := fixed4(100), must(NewVarint(10_000))
	f, g := frame(t, small, payloadOf(90, 0)), frame(t, large, payloadOf(9000, 1))
	stream := append(append([]byte{}, f...), append(f[:len(f):len(f)], g...)...)
	src := &script{steps: []step{{stream[:150], os.ErrDeadlineExceeded}, {stream[150:], nil}}}
	r := NewReader(src, small)
	_, err := r.Next()
	require.NoError(t, err)
	_, err = r.Next()
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	r.SetCodec(large) // the header in progress was accepted under the other one
	require.False(t, r.Buffered(), "a varint would read 0 here")
	payload, err := r.Next()
	require.NoError(t, err)
	assert.Equal(t, payloadOf(90, 0), payload)
	payload, err = r.Next()
	require.NoError(t, err)
	assert.Equal(t, payloadOf(9000, 1), payload)
}

func TestReader_NextSize(t *testing.T) {
	const mib = 1 << 20
	for name, tc := range map[string]struct {
		size, r, w    int
		width, length int
		small         int
		want          int
	}{
		"first":                              {want: startSize},
		"room left":                          {size: 4096, w: 100, want: 4096},
		"filled":                             {size: 4096, r: 4000, w: 4096, want: 8192},
		"filled at the stream size":          {size: streamSize, r: 10, w: streamSize, want: streamSize},
		"filled, not a power of two":         {size: 192 << 10, r: 10, w: 192 << 10, want: streamSize},
		"full of one frame":                  {size: 8192, w: 8192, width: 4, length: 9000, want: 16384},
		"full of a frame above stream size":  {size: streamSize, w: streamSize, width: 4, length: 300_000, want: 300_004},
		"full of a frame far larger":         {size: streamSize, w: streamSize, width: 4, length: 1 << 30, want: 2 * streamSize},
		"full of a power of two":             {size: mib / 2, w: mib / 2, width: 4, length: mib, want: mib + 4},
		"full of the largest frame":          {size: mib, w: mib, width: 8, length: math.MaxInt, want: 2 * mib},
		"large frame returned":               {size: 3 * mib, r: 3 * mib, w: 3 * mib, want: modestSize},
		"large frame not whole":              {size: 3 * mib, w: 2 * mib, width: 4, length: 3*mib - 4, want: 3 * mib},
		"third wasteful round":               {size: streamSize, r: 99, w: 100, small: 2, want: streamSize},
		"fourth wasteful round":              {size: streamSize, r: 99, w: 100, small: 3, want: startSize},
		"fourth wasteful round, much held":   {size: streamSize, r: 100, w: 60_100, small: 3, want: 120_000},
		"a round that used a third":          {size: streamSize, r: 99, w: 90_000, small: 3, want: streamSize},
		"wasteful, but nothing returned yet": {size: streamSize, w: 100, small: 3, want: streamSize},
	} {
		r := &Reader{buf: make([]byte, tc.size), r: tc.r, w: tc.w, width: tc.width, length: tc.length, small: tc.small}
		assert.Equal(t, tc.want, r.nextSize(), name)
	}
}

func TestReader_SurvivesBadSourcesAndCodecs(t *testing.T) {
	for name, n := range map[string]int{"negative": -1, "too many": 1 << 20} {
		r := NewReader(readFunc(func([]byte) (int, error) { return n, nil }), fixed4(100))
		_, err := r.Next()
		assert.Equal(t, errBadRead, err, name)
	}
	r := NewReader(readFunc(func([]byte) (int, error) { return 0, nil }), fixed4(100))
	_, err := r.Next()
	assert.Equal(t, io.ErrNoProgress, err)

	for name, c := range map[string]fakeCodec{
		"width 0":         {length: 1},
		"negative length": {length: -1, width: 1},
		"negative width":  {length: 1, width: -1},
		"width too large": {length: 1, width: 1000},
		"never complete":  {err: ErrIncomplete},
	} {
		r := NewReader(bytes.NewReader(make([]byte, 100)), c)
		_, err := r.Next()
		assert.Equal(t, errBadCodec, err, name)
		assert.False(t, r.Buffered(), name)
	}
}

type fakeCodec struct {
	length, width int
	err           error
}

func (c fakeCodec) MaxLength() int                               { return 100 }
func (c fakeCodec) AppendHeader(d []byte, _ int) ([]byte, error) { return d, errors.New("not used") }
func (c fakeCodec) ParseHeader(src []byte) (int, int, error) {
	if len(src) == 0 {
		return 0, 0, ErrIncomplete
	}
	return c.length, c.width, c.err
}
