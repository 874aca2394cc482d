package framing

import (
	"bytes"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestReader_TakenPayloadsAreNotOverwritten(t *testing.T) {
	for name, c := range codecs() {
		random := rand.New(rand.NewPCG(3, 4))
		var stream []byte
		var want [][]byte
		for i := range 200 {
			n := random.IntN(400)
			if i%5 == 0 {
				n = random.IntN(70_000)
			}
			want = append(want, payloadOf(n, i))
			stream = append(stream, frame(t, c, want[i])...)
		}
		src := bytes.NewReader(stream)
		r := NewReader(readFunc(func(p []byte) (int, error) { return src.Read(p[:min(len(p), 1+random.IntN(40_000))]) }), c)
		var taken [][]byte
		handed := 0
		for range want {
			view, err := r.Next()
			require.NoError(t, err)
			own := r.Take()
			require.NotNil(t, own)
			require.Equal(t, len(own), cap(own))
			require.Nil(t, r.Take(), "only one owner")
			if len(own) > 0 && &own[0] == &view[0] {
				handed++
			}
			taken = append(taken, own)
		}
		assert.Equal(t, want, taken, name)
		assert.Positive(t, handed, "%s: some frames fill most of the buffer", name)
	}
}

func TestReader_TakeHandsOverALargeFrameWithItsBuffer(t *testing.T) {
	c := fixed4(1 << 20)
	big, small := payloadOf(1<<20, 1), payloadOf(100, 2)
	r := NewReader(bytes.NewReader(append(frame(t, c, big), frame(t, c, small)...)), c)
	view, err := r.Next()
	require.NoError(t, err)
	own := r.Take()
	require.Same(t, &own[0], &view[0], "no copy")
	assert.Equal(t, modestSize, cap(r.buf))
	view, err = r.Next()
	require.NoError(t, err)
	assert.Equal(t, small, view)
	own2 := r.Take()
	assert.NotSame(t, &own2[0], &view[0], "a small one is copied")
	assert.True(t, bytes.Equal(big, own))
}

func TestReader_TakeBeforeNextAndAfterEndIsNil(t *testing.T) {
	c := fixed4(100)
	r := NewReader(bytes.NewReader(frame(t, c, []byte("x"))), c)
	require.Nil(t, r.Take())
	_, err := r.Next()
	require.NoError(t, err)
	_, err = r.Next()
	require.Equal(t, io.EOF, err)
	require.Nil(t, r.Take())
}

func TestReader_MemoryFollowsBytesReceivedNotDeclared(t *testing.T) {
	c := fixed4(1<<31 - 1)
	stream := append([]byte{0x40, 0, 0, 0}, "ten bytes!"...)
	allocated := func() uint64 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		r := NewReader(bytes.NewReader(stream), c)
		_, err := r.Next()
		runtime.ReadMemStats(&after)
		require.Equal(t, ErrTruncatedBody, err)
		require.LessOrEqual(t, cap(r.buf), startSize)
		return after.TotalAlloc - before.TotalAlloc
	}
	least := allocated() // others allocate in between: take the least of some runs
	for range 5 {
		least = min(least, allocated())
	}
	assert.LessOrEqual(t, least, uint64(16<<10))
}

// boundedSource checks the bound of the reader's buffer at every Read.
type boundedSource struct {
	t        testing.TB
	src      io.Reader
	r        *Reader
	received int
}

func (b *boundedSource) Read(p []byte) (int, error) {
	if limit := max(startSize, b.received*9/4); cap(b.r.buf) > limit {
		b.t.Fatalf("buffer of %d bytes after %d received", cap(b.r.buf), b.received)
	}
	n, err := b.src.Read(p)
	b.received += n
	return n, err
}

func TestReader_BufferIsBoundedByTheBytesReceived(t *testing.T) {
	c := fixed4(1<<31 - 1)
	header := []byte{0x40, 0, 0, 0}
	for _, chunk := range []int{1000, 4096, 50_000, 1 << 20} {
		src := &boundedSource{t: t}
		left := 3 << 20
		src.src = readFunc(func(p []byte) (int, error) {
			n := min(len(p), chunk, left)
			copy(p[:n], header) // zeros or more headers: the first one counts
			if left -= n; n == 0 {
				return 0, io.EOF
			}
			return n, nil
		})
		src.r = NewReader(src, c)
		_, err := src.r.Next()
		require.Equal(t, ErrTruncatedBody, err)
		require.Equal(t, 3<<20, src.received)
	}
}

func TestReader_SmallFramesGrowTheBufferToTheStreamSizeOnly(t *testing.T) {
	c := fixed4(1 << 20)
	block := bytes.Repeat(frame(t, c, payloadOf(110, 0)), 20_000)
	r := NewReader(bytes.NewReader(block), c)
	for range 20_000 {
		_, err := r.Next()
		require.NoError(t, err)
		require.LessOrEqual(t, cap(r.buf), streamSize)
	}
	assert.Equal(t, streamSize, cap(r.buf))
}

func TestReader_GivesItsBufferBackWhenIdle(t *testing.T) {
	c := fixed4(1 << 22)
	ping := frame(t, c, payloadOf(20, 0))
	burst := bytes.Repeat(frame(t, c, payloadOf(110, 0)), 20_000)
	drain := func(r *Reader) error {
		for {
			if _, err := r.Next(); err != nil {
				return err
			}
		}
	}

	t.Run("after small rounds", func(t *testing.T) {
		src := &script{steps: []step{{burst, nil}}}
		for range shrinkAfter + 2 { // the rest of the burst and the step up may count as a round each
			src.steps = append(src.steps, step{ping, nil})
		}
		var last int
		r := NewReader(readFunc(func(p []byte) (int, error) { last = len(p); return src.Read(p) }), c)
		require.Equal(t, io.EOF, drain(r))
		assert.Equal(t, startSize, last)
		assert.Equal(t, startSize, cap(r.buf))
	})
	t.Run("after a deadline between frames", func(t *testing.T) {
		src := &script{steps: []step{{burst, nil}, {nil, os.ErrDeadlineExceeded}, {ping, nil}}}
		r := NewReader(src, c)
		require.ErrorIs(t, drain(r), os.ErrDeadlineExceeded)
		assert.Zero(t, cap(r.buf))
		_, err := r.Next()
		require.NoError(t, err)
		assert.Equal(t, startSize, cap(r.buf))
	})
	t.Run("after a large frame that nobody took", func(t *testing.T) {
		src := &script{steps: []step{{frame(t, c, payloadOf(3<<20, 0)), nil}, {ping, nil}}}
		r := NewReader(src, c)
		_, err := r.Next()
		require.NoError(t, err)
		assert.Equal(t, 3<<20+4, cap(r.buf), "exactly the frame")
		_, err = r.Next()
		require.NoError(t, err)
		assert.Equal(t, modestSize, cap(r.buf))
	})
}

func TestReader_AllocatesNothingPerFrame(t *testing.T) {
	c := fixed4(1 << 20)
	r := NewReader(newLoop(t, c, 110), c)
	for range 50_000 {
		_, _ = r.Next()
	}
	assert.Zero(t, testing.AllocsPerRun(50_000, func() { _, _ = r.Next() }))
}
