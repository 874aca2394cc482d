package pipe

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"
)

// A rate is kept to the moment from the first line on, and makes nothing up; a count ends the input at its last line.
func TestPaced(t *testing.T) {
	type arrival struct {
		number int
		at     time.Duration
	}
	const ms = time.Millisecond
	for name, test := range map[string]struct {
		rate  float64
		count int
		want  []arrival
	}{
		"as they come":  {0, 0, []arrival{{1, 700 * ms}, {2, 700 * ms}, {3, 700 * ms}, {4, 700 * ms}}},
		"a count":       {0, 3, []arrival{{1, 700 * ms}, {2, 700 * ms}, {3, 700 * ms}}},
		"a rate":        {4, 0, []arrival{{1, 700 * ms}, {2, 950 * ms}, {3, 1200 * ms}, {4, 1450 * ms}}},
		"both":          {4, 2, []arrival{{1, 700 * ms}, {2, 950 * ms}}},
		"a large count": {4, 9, []arrival{{1, 700 * ms}, {2, 950 * ms}, {3, 1200 * ms}, {4, 1450 * ms}}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				failed := errors.New("torn")
				from := &input{lines: make(chan line)}
				began := time.Now()
				go func() { // ends with the input, or with the test
					defer close(from.lines)
					time.Sleep(700 * ms)
					for n := range 4 {
						select {
						case from.lines <- line{number: n + 1}:
						case <-t.Context().Done():
							return
						}
					}
					from.err = failed
				}()
				in := paced(t.Context(), from, test.rate, test.count)
				var got []arrival
				for l := range in.lines {
					got = append(got, arrival{l.number, time.Since(began)})
				}
				require.Equal(t, test.want, got)
				if test.count == 0 || test.count > 4 {
					require.ErrorIs(t, in.err, failed)
				} else {
					require.NoError(t, in.err)
				}
			})
		})
	}
}

// A body is one message, or as many as --count says; with --rate they come at that rate.
func TestSource_OfABody(t *testing.T) {
	for _, test := range []struct {
		count int
		rate  float64
		lines int
		took  time.Duration
	}{{0, 0, 1, 0}, {1, 0, 1, 0}, {3, 0, 3, 0}, {3, 2, 3, time.Second}} {
		synctest.Test(t, func(t *testing.T) {
			body := []byte("1234")
			o := PubOptions{Body: &body, Count: test.count, Rate: test.rate, Options: Options{MaxMessageSize: 4}}
			began := time.Now()
			in, err := o.source(t.Context())
			require.NoError(t, err)
			var numbers []int
			for l := range in.lines {
				numbers = append(numbers, l.number)
				require.Equal(t, "1234", string(l.payload))
			}
			require.Equal(t, []int{1, 2, 3}[:test.lines], numbers)
			require.Equal(t, test.took, time.Since(began))
			o.MaxMessageSize = 3
			_, err = o.source(t.Context())
			require.Equal(t, &TooLongError{What: "the message", Size: 4, Limit: 3}, err)
		})
	}
	for _, o := range []PubOptions{{Rate: -1}, {Count: -1}} {
		_, err := o.source(t.Context())
		require.ErrorContains(t, err, "negative")
	}
}

// noted is a writer that says in which order it was asked, and fails when it is told to.
type noted struct {
	log              string
	failing, flushes error // of the print of "bad", and of flush
}

func (n *noted) print(m *message.Message) error {
	n.log += string(m.Payload)
	if string(m.Payload) == "bad" {
		return n.failing
	}
	return nil
}

func (n *noted) flush() error {
	n.log += "|"
	return n.flushes
}

// A message is acked once what it was written with is flushed, or given back; up to Count are taken, and no more.
func TestTake_AcksWhatWasFlushed(t *testing.T) {
	broken := errors.New("broken")
	for name, test := range map[string]struct {
		o       SubOptions
		there   string
		w       noted
		log     string
		answers string
		left    int
	}{
		"all that is there":      {SubOptions{}, "a b c", noted{}, "abc|", "+++", 0},
		"a count":                {SubOptions{Count: 2}, "a b c", noted{}, "ab|", "++.", 1},
		"nack":                   {SubOptions{Nack: true, Count: 2}, "a b c", noted{}, "ab|", "--.", 1},
		"a write that fails":     {SubOptions{}, "a bad c", noted{failing: broken}, "abad", "--.", 1},
		"a flush that fails":     {SubOptions{}, "a b", noted{flushes: broken}, "ab|", "--", 0},
		"no more than may share": {SubOptions{}, strings.TrimSpace(strings.Repeat("x ", inFlight+2)), noted{}, strings.Repeat("x", inFlight) + "|", strings.Repeat("+", inFlight) + "..", 2},
	} {
		t.Run(name, func(t *testing.T) {
			names := strings.Fields(test.there)
			in := make(chan *message.Message, len(names))
			var all []*message.Message
			for _, n := range names {
				all = append(all, message.NewMessage("", []byte(n)))
				in <- all[len(all)-1]
			}
			r := &receiver{o: test.o, printer: &test.w}
			err := r.take(<-in, in)
			require.Equal(t, test.w.failing != nil || test.w.flushes != nil, errors.Is(err, broken))
			require.Equal(t, test.log, test.w.log)
			var got strings.Builder
			for _, m := range all {
				select {
				case <-m.Acked():
					got.WriteByte('+')
				case <-m.Nacked():
					got.WriteByte('-')
				default:
					got.WriteByte('.')
				}
			}
			require.Equal(t, test.answers, got.String())
			require.Len(t, in, test.left)
			require.EqualValues(t, len(all)-test.left, r.taken.Load())
		})
	}
}

// A dump goes on behind the largest number that is there, and overwrites nothing.
func TestDump_GoesOnBehindWhatIsThere(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	for i := range 2 {
		d, err := newDump(dir, false)
		require.NoError(t, err)
		require.Equal(t, 7*i, d.number)
		m := message.NewMessage("id", []byte{0xff, '\n'})
		m.Metadata.Set("k", "v")
		require.NoError(t, d.print(m))
		require.NoError(t, os.WriteFile(filepath.Join(dir, "00000007.payload"), nil, 0o600))
	}
	payload, err := os.ReadFile(filepath.Join(dir, "00000008.payload"))
	require.NoError(t, err)
	require.Equal(t, []byte{0xff, '\n'}, payload)
	about, err := os.ReadFile(filepath.Join(dir, "00000008.json"))
	require.NoError(t, err)
	require.JSONEq(t, `{"uuid":"id","metadata":{"k":"v"}}`, string(about))
	info, err := os.Stat(dir)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o700), info.Mode().Perm())
	again := &dump{dir: dir, number: 7}
	require.ErrorIs(t, again.print(message.NewMessage("", nil)), os.ErrExist)
}

// A message comes out as its format has it, and no text stands for bytes that are none.
func TestPrinter_Formats(t *testing.T) {
	for name, test := range map[string]struct {
		format  Format
		payload string
		headers bool
		want    string
	}{
		"text":            {Text, "a", false, "a\n"},
		"raw":             {Raw, "a", false, "a"},
		"headers":         {Text, "a", true, "# id k=v z=\"1 2\"\na\n"},
		"JSON":            {JSON, "<a>", true, `{"uuid":"id","metadata":{"k":"v","z":"1 2"},"payload":"<a>","payload_base64":"PGE+"}` + "\n"},
		"JSON of bytes":   {JSON, "\xff", false, `{"uuid":"id","metadata":{"k":"v","z":"1 2"},"payload_base64":"/w=="}` + "\n"},
		"JSON of nothing": {JSON, "", false, `{"uuid":"id","metadata":{"k":"v","z":"1 2"},"payload":"","payload_base64":""}` + "\n"},
	} {
		var out strings.Builder
		m := message.NewMessage("id", []byte(test.payload))
		if test.payload == "" {
			m.Payload = nil
		}
		m.Metadata.Set("z", "1 2")
		m.Metadata.Set("k", "v")
		p := newPrinter(SubOptions{Out: &out, Format: test.format, Headers: test.headers})
		require.NoError(t, p.print(m), name)
		require.Empty(t, out.String(), "nothing before flush")
		require.NoError(t, p.flush())
		require.Equal(t, test.want, out.String(), name)
	}
}

func TestHeaders(t *testing.T) {
	headers, err := Headers([]string{"a=1", "b=", "c=x=y"})
	require.NoError(t, err)
	require.Equal(t, map[string]string{"a": "1", "b": "", "c": "x=y"}, headers)
	for _, bad := range []string{"a", "=1", ""} {
		_, err := Headers([]string{bad})
		require.ErrorContains(t, err, "--header")
	}
}
