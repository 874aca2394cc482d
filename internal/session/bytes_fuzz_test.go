package session

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
)

// FuzzVerify damages a sealed frame: whatever is not what was sent must be found out, as far as four bytes can.
func FuzzVerify(f *testing.F) {
	f.Add([]byte("payload"), uint16(3), byte(1))
	f.Add([]byte{}, uint16(0), byte(0x80))
	f.Add([]byte{0x7d, 1, 2, 3, 4}, uint16(4), byte(0))
	f.Fuzz(func(t *testing.T, data []byte, at uint16, flip byte) {
		e := encoder(t, true)
		if got, err := e.Verify(data); err == nil { // taken as it came
			require.Equal(t, data[:len(data)-crcSize], got)
			require.EqualValues(t, crcTag, data[len(got)])
		}
		sealed := e.appendTrailer(bytes.Clone(data), 0)
		got, err := e.Verify(sealed)
		require.NoError(t, err)
		require.Equal(t, data, append([]byte{}, got...))
		i := int(at) % len(sealed)
		sealed[i] ^= flip
		_, err = e.Verify(sealed)
		require.Equal(t, flip == 0, err == nil, "flipped %#x at %d of %d", flip, i, len(sealed))
	})
}

// FuzzBatch appends messages, some of which are too long or fail half way, and finds every other again: in the batch,
// in a chunk, and in a Publish.
func FuzzBatch(f *testing.F) {
	f.Add([]byte{3, 1, 2, 3, 0, 255, 130}, uint16(200))
	f.Add([]byte{127, 0, 128, 0, 129}, uint16(127))
	f.Fuzz(func(t *testing.T, data []byte, limit uint16) {
		if len(data) > maxScript {
			t.Skip("long")
		}
		in := newScript(data)
		var b Batch
		var want [][]byte
		for len(in.data) > 0 {
			size := in.byte()
			if size%16 == 15 {
				size *= 80 // lengths of three bytes
			}
			msg := bytes.Repeat([]byte{byte(size)}, size)
			fails := in.byte()%8 == 7
			n, ok, err := b.Append(int(limit), func(dst []byte) ([]byte, error) {
				dst = append(dst, msg...)
				if fails {
					return dst, ErrChecksum
				}
				return dst, nil
			})
			require.Equal(t, fails, err != nil)
			require.Equal(t, !fails && size <= int(limit), ok)
			if ok {
				require.Equal(t, size, n)
				want = append(want, msg)
			}
		}
		require.Equal(t, len(want), b.Len())
		if len(want) == 0 || len(want) > MaxBatchMessages {
			return
		}
		require.Equal(t, want, b.Messages())
		c := &chunk{first: 7, count: b.Len(), buf: b.buf}
		for i, msg := range want {
			require.Equal(t, msg, c.message(7+uint64(i)))
		}
		e := encoder(t, true)
		frame, err := e.AppendPublish(nil, Segment{Handle: 1, First: 7, Body: b.buf})
		if err != nil {
			t.Skip("larger than a frame may be")
		}
		opened, err := e.Verify(payload(t, e, frame))
		require.NoError(t, err)
		got, err := Decode(opened)
		require.NoError(t, err)
		require.Equal(t, want, got.(*PublishFrame).Messages)
		require.Equal(t, len(b.buf), got.(*PublishFrame).Bytes)
	})
}
