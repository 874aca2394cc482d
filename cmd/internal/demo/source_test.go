package demo

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestSource_HonoursTheLimit(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f.go")
	require.NoError(t, os.WriteFile(path, []byte("1234567890"), 0o600))
	for name, test := range map[string]struct {
		size  int64 // when it was found
		limit int
		want  string // empty: too large
	}{
		"fits":                 {10, 11, "1234567890"},
		"fits exactly":         {10, 10, "1234567890"},
		"over":                 {10, 9, ""},
		"has grown":            {3, 10, "1234567890"},
		"has grown over":       {3, 9, ""},
		"was empty":            {0, 10, "1234567890"},
		"has shrunk":           {20, 30, "1234567890"},
		"has shrunk from over": {20, 15, ""}, // it was judged when it was found
	} {
		t.Run(name, func(t *testing.T) {
			content, err := file{path: path, size: test.size}.read(test.limit)
			if test.want != "" {
				require.NoError(t, err)
				require.Equal(t, test.want, string(content))
				return
			}
			var tooLarge *tooLargeError
			require.ErrorAs(t, err, &tooLarge)
			require.Greater(t, tooLarge.size, int64(test.limit))
		})
	}
}

// A file that cannot be read is reported, and the rest goes on.
func TestSource_UnreadableFileIsReported(t *testing.T) {
	var out bytes.Buffer
	p := &publisher{cfg: PublisherConfig{MaxMessageSize: 100}, reporter: newReporter(&out)}
	b := &batch{publisher: p}
	require.NoError(t, b.add(file{path: filepath.Join(t.TempDir(), "vanished.go"), name: "vanished.go", size: 5}))
	require.NoError(t, b.publish(), "there is nothing to publish")
	var e event
	require.NoError(t, json.Unmarshal(out.Bytes(), &e))
	require.Equal(t, "vanished.go", e.Refused.Name)
	require.False(t, e.Refused.TooLarge)

	var screenText strings.Builder
	l := newLedger()
	e.apply(l, newScreen(&screenText, false, l))
	require.Contains(t, screenText.String(), "refused vanished.go: open ")
	a := l.account("", "", 0)
	require.Equal(t, []int{1, 1}, []int{a.Refused, a.Unreadable})
}

func TestSource_UnreadableFolderIsPassedOver(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root reads everything")
	}
	dir := t.TempDir()
	closed := filepath.Join(dir, "closed")
	require.NoError(t, os.Mkdir(closed, 0))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "open.go"), nil, 0o600))
	var skipped []string
	files, err := findFiles(dir, func(name string, err error) {
		require.Error(t, err)
		skipped = append(skipped, name)
	})
	require.NoError(t, err)
	require.Len(t, files, 1)
	require.Equal(t, []string{closed}, skipped)
}

func TestDigest_TellsNamesAndContentsApart(t *testing.T) {
	require.NotEqual(t, digest("a", []byte("b")), digest("ab", nil))
	require.NotEqual(t, digest("a", []byte("b")), digest("a", []byte("c")))
	same := digest("a", []byte("b"))
	require.Equal(t, same, digest("a", []byte("b")))
}
