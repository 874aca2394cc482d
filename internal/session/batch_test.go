package session

import (
	"bytes"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protowire"
)

// add puts one message into a batch.
func add(t testing.TB, b *Batch, message []byte) {
	size, ok, err := b.Append(1<<30, func(dst []byte) ([]byte, error) { return append(dst, message...), nil })
	if err != nil || !ok || size != len(message) {
		t.Fatalf("appending %d bytes: size %d, ok %v, %v", len(message), size, ok, err)
	}
}

// body is what a Publish says of messages, written the slow way.
func body(messages ...[]byte) (out []byte) {
	for _, m := range messages {
		out = protowire.AppendTag(out, 4, protowire.BytesType)
		out = protowire.AppendBytes(out, m)
	}
	return out
}

func pattern(n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(i*7 + n)
	}
	return p
}

func TestBatch_EncodesMessagesOfEveryWidthOfLength(t *testing.T) {
	var b Batch
	var want []byte
	for round := range 2 { // the second finds used memory
		b.Reset()
		want = want[:0]
		for i, n := range []int{0, 1, 127, 128, 16383, 16384, 70000, 5, 0, 2097151, 2097152, 300} {
			m := pattern(n)
			add(t, &b, m)
			want = append(want, body(m)...)
			require.Equal(t, i+1, b.Len())
			require.Equal(t, len(want), b.entries[i].end)
			require.Equal(t, len(want)-EncodedSize(n), b.entries[i].start)
		}
		require.True(t, bytes.Equal(want, b.buf), "round %d", round)
	}
	b.Reset()
	require.Zero(t, b.Len())
	require.Zero(t, cap(b.buf), "a large buffer is not kept")
}

func TestBatch_IsUnchangedWhenAMessageIsNotTaken(t *testing.T) {
	errEncode := errors.New("no")
	var b Batch
	for _, already := range []int{0, 1, 3} {
		b.Reset()
		for i := range already {
			add(t, &b, pattern(10*i))
		}
		before := bytes.Clone(b.buf)
		_, ok, err := b.Append(1<<20, func(dst []byte) ([]byte, error) { return append(dst, "half"...), errEncode })
		require.ErrorIs(t, err, errEncode)
		require.False(t, ok)
		_, ok, err = b.Append(1<<20, func([]byte) ([]byte, error) { return nil, errEncode })
		require.ErrorIs(t, err, errEncode)
		require.False(t, ok)
		size, ok, err := b.Append(99, func(dst []byte) ([]byte, error) { return append(dst, pattern(100)...), nil })
		require.NoError(t, err)
		require.False(t, ok)
		require.Equal(t, 100, size)
		require.Equal(t, already, b.Len())
		require.Equal(t, string(before), string(b.buf))

		size, ok, err = b.Append(100, func(dst []byte) ([]byte, error) { return append(dst, pattern(100)...), nil })
		require.NoError(t, err)
		require.True(t, ok, "the limit itself is permitted")
		require.Equal(t, 100, size)
		require.Equal(t, string(before)+string(body(pattern(100))), string(b.buf))
	}
}

func TestChunk_FindsItsMessages(t *testing.T) {
	messages := [][]byte{pattern(3), nil, pattern(200), pattern(20000), pattern(1)}
	c := &chunk{first: 7, count: len(messages), buf: body(messages...)}
	for i, m := range messages {
		require.Equal(t, string(m), string(c.message(7+uint64(i))))
	}
	require.Equal(t, uint64(12), c.end())
	require.Equal(t, len(c.buf), c.offsetAfter(0, 5))
	n, size := c.fit(0, 5, uint64(EncodedSize(3)+EncodedSize(0)), 1<<20)
	require.Equal(t, []int{2, EncodedSize(3) + EncodedSize(0)}, []int{int(n), size})
	n, size = c.fit(0, 1, 1<<20, 1<<20)
	require.Equal(t, []int{1, EncodedSize(3)}, []int{int(n), size})
	n, size = c.fit(0, 5, uint64(EncodedSize(3)-1), 1<<20)
	require.Equal(t, []int{0, 0}, []int{int(n), size})
	n, size = c.fit(0, 5, 1<<20, EncodedSize(200)-1)
	require.Equal(t, []int{2, EncodedSize(3) + EncodedSize(0)}, []int{int(n), size}, "none is larger than most")
	n, size = c.fit(0, 5, 1<<20, EncodedSize(3)-1)
	require.Equal(t, []int{0, 0}, []int{int(n), size})
}
