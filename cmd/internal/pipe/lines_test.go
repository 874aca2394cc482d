package pipe

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"
)

func readAll(t *testing.T, r *lineReader) (lines []string, err error) {
	t.Helper()
	for {
		l, err := r.next()
		if err != nil {
			return lines, err
		}
		require.Equal(t, len(lines)+1, l.number)
		lines = append(lines, string(l.payload))
	}
}

func TestLines(t *testing.T) {
	long := strings.Repeat("x", 200_000)
	for input, want := range map[string][]string{
		"":                    nil,
		"\n":                  {""},
		"a":                   {"a"},
		"a\n":                 {"a"},
		"a\n\nb":              {"a", "", "b"},
		"a\r\n":               {"a\r"},
		long + "\n" + long:    {long, long},
		"\x00\xff\n\xfe":      {"\x00\xff", "\xfe"},
		long[:65536] + "\nb":  {long[:65536], "b"},
		long[:65535] + "\nb":  {long[:65535], "b"},
		long[:65536] + "\n\n": {long[:65536], ""},
	} {
		for _, r := range []io.Reader{strings.NewReader(input), iotest.OneByteReader(strings.NewReader(input))} {
			lines, err := readAll(t, newLineReader(r, len(long)))
			require.ErrorIs(t, err, io.EOF)
			require.Equal(t, want, lines)
		}
	}
}

func TestLines_OverTheLimit(t *testing.T) {
	for _, input := range []string{"12345\n123456\n1", "12345\n123456", "12345\n" + strings.Repeat("x", 1<<20)} {
		lines, err := readAll(t, newLineReader(strings.NewReader(input), 5))
		var tooLong *TooLongError
		require.ErrorAs(t, err, &tooLong)
		require.Equal(t, "line 2", tooLong.What)
		require.Equal(t, []string{"12345"}, lines)
	}
}

// endless never runs out and has no newline: what is over the limit is noticed without reading it all.
type endless struct{}

func (endless) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = 'x'
	}
	return len(b), nil
}

func TestLines_EndlessLineEnds(t *testing.T) {
	_, err := newLineReader(endless{}, 1000).next()
	require.ErrorContains(t, err, "longer than 1000 bytes")
}

func TestLines_ErrorComesAfterThem(t *testing.T) {
	broken := errors.New("broken")
	in := readLines(context.Background(), io.MultiReader(strings.NewReader("a\nb\n"), iotest.ErrReader(broken)), 10)
	var got []string
	for {
		batch, ok := in.gather(context.Background())
		if !ok {
			break
		}
		for _, l := range batch {
			got = append(got, string(l.payload))
		}
	}
	require.Equal(t, []string{"a", "b"}, got)
	require.ErrorIs(t, in.err, broken)
}

// What was read before the end is taken nevertheless.
func TestGather_PrefersLinesToTheEnd(t *testing.T) {
	in := &input{lines: make(chan line, 2)}
	in.lines <- line{1, []byte("a")}
	in.lines <- line{2, []byte("b")}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	batch, ok := in.gather(ctx)
	require.True(t, ok)
	require.Len(t, batch, 2)
	_, ok = in.gather(ctx)
	require.False(t, ok)
}

func TestGather_BatchesAreBounded(t *testing.T) {
	in := readLines(context.Background(), strings.NewReader(strings.Repeat(strings.Repeat("x", 300_000)+"\n", 50)), 1<<20)
	total := 0
	for {
		batch, ok := in.gather(context.Background())
		if !ok {
			break
		}
		require.LessOrEqual(t, len(batch), 4, "of 1 MiB and one more line")
		total += len(batch)
	}
	require.Equal(t, 50, total)
}
