package framing

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

type writeFunc func([]byte) (int, error)

func (f writeFunc) Write(p []byte) (int, error) { return f(p) }

func TestWriter_WritesQueuedFramesAtOnce(t *testing.T) {
	for name, c := range codecs() {
		var wire bytes.Buffer
		writes := 0
		w := NewWriter(writeFunc(func(p []byte) (int, error) { writes++; return wire.Write(p) }), c)
		require.NoError(t, w.Flush(), "nothing to write")
		require.Zero(t, writes)
		for i := range 50 {
			require.NoError(t, w.Append(payloadOf(i*20, i)))
		}
		buffered := w.Buffered()
		require.Zero(t, writes)
		require.NoError(t, w.Flush())
		assert.Equal(t, 1, writes, name)
		assert.Equal(t, buffered, wire.Len())
		assert.Zero(t, w.Buffered())

		r := NewReader(&wire, c)
		for i := range 50 {
			payload, err := r.Next()
			require.NoError(t, err)
			require.True(t, bytes.Equal(payloadOf(i*20, i), payload))
		}
	}
}

func TestWriter_IsUnusableAfterAFailedWrite(t *testing.T) {
	broken := errors.New("broken")
	for name, tc := range map[string]struct {
		write func([]byte) (int, error)
		want  error
	}{
		"error":              {func([]byte) (int, error) { return 0, broken }, broken},
		"error after a part": {func(p []byte) (int, error) { return len(p) / 2, broken }, broken},
		"error with all":     {func(p []byte) (int, error) { return len(p), broken }, broken},
		"silent short write": {func(p []byte) (int, error) { return len(p) - 1, nil }, io.ErrShortWrite},
		"negative count":     {func([]byte) (int, error) { return -1, nil }, errBadWrite},
		"count too large":    {func(p []byte) (int, error) { return len(p) + 1, nil }, errBadWrite},
	} {
		t.Run(name, func(t *testing.T) {
			writes := 0
			w := NewWriter(writeFunc(func(p []byte) (int, error) { writes++; return tc.write(p) }), fixed4(1000))
			require.NoError(t, w.Append([]byte("first")))
			for range 2 {
				assert.Equal(t, tc.want, w.Flush())
				assert.Equal(t, tc.want, w.Append([]byte("second")))
				assert.Zero(t, w.Buffered())
			}
			assert.Equal(t, 1, writes, "nothing may follow half a frame")
		})
	}
}

func TestWriter_StaysUsableAfterARefusedPayload(t *testing.T) {
	var wire bytes.Buffer
	w := NewWriter(&wire, fixed4(5))
	require.NoError(t, w.Append([]byte("one")))
	var tooLong *LengthError
	require.ErrorAs(t, w.Append([]byte("too long")), &tooLong)
	require.NoError(t, w.Append([]byte("two")))
	require.NoError(t, w.Flush())
	assert.Equal(t, "\x00\x00\x00\x03one\x00\x00\x00\x03two", wire.String())
}

func TestWriter_KeepsModestBuffersOnly(t *testing.T) {
	w := NewWriter(io.Discard, fixed4(1<<20))
	require.NoError(t, w.Append(make([]byte, 1000)))
	require.NoError(t, w.Flush())
	assert.Positive(t, cap(w.buf))
	require.NoError(t, w.Append(make([]byte, 1<<20)))
	require.NoError(t, w.Flush())
	assert.Zero(t, cap(w.buf))
}
