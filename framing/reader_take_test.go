package framing

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
)

// Take hands the buffer over only where a large payload fills most of it: one that is small, or small for its buffer, is copied.
func TestReader_TakeHandsOverWhatFillsTheBuffer(t *testing.T) {
	c := fixed4(1 << 20)
	for name, sizes := range map[string]struct {
		buffer, payload int
		handedOver      bool
	}{
		"small, and fills it":        {startSize, startSize - 4, false},
		"just too small":             {minHandOver, minHandOver - 4, false},
		"large, and fills it":        {minHandOver + 4, minHandOver, true},
		"large in one that is large": {4 * minHandOver, minHandOver, false},
		"less than three quarters":   {4 * minHandOver, 3*minHandOver - 1, false},
		"three quarters":             {4 * minHandOver, 3 * minHandOver, true},
	} {
		t.Run(name, func(t *testing.T) {
			want := payloadOf(sizes.payload, 7)
			r := NewReader(bytes.NewReader(frame(t, c, want)), c)
			r.buf = make([]byte, sizes.buffer)
			_, err := r.Next()
			require.NoError(t, err)
			buf := r.buf
			got := r.Take()
			require.Equal(t, want, got)
			require.Equal(t, sizes.handedOver, &buf[4] == &got[0])
			require.Equal(t, sizes.handedOver, &buf[0] != &r.buf[0], "it goes on with another")
			require.Nil(t, r.Take())
		})
	}
}

// What is as large as any before it is read into memory of its own, also when smaller ones came between, and what is larger is not.
func TestReader_ReadsWhatCameBeforeIntoItsOwnMemory(t *testing.T) {
	c := fixed4(1 << 20)
	sizes := []int{2 * minDirect, 10, 2 * minDirect, minDirect, minDirect - 1, 2*minDirect + 1, 2*minDirect + 1}
	own := []bool{false, false, true, true, false, false, true}
	var stream []byte
	for i, size := range sizes {
		stream = append(stream, frame(t, c, payloadOf(size, i))...)
	}
	src := bytes.NewReader(stream)
	r := NewReader(readFunc(func(p []byte) (int, error) { return src.Read(p[:min(len(p), 100)]) }), c)
	for i, size := range sizes {
		got, err := r.Next()
		require.NoError(t, err)
		require.Equal(t, own[i], r.own != nil, "frame %d", i)
		require.Equal(t, payloadOf(size, i), got)
		if i%2 == 0 {
			require.Equal(t, payloadOf(size, i), r.Take())
			require.Nil(t, r.own)
		}
	}
}
