package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestOutbox_RefusedMessagesAreNamed(t *testing.T) {
	t.Parallel()
	topic, dir := quietTopic(t), outboxDir(t)
	sub, _ := startSub(t, nil, topic, "--max-message-size", "100", "--group", "g")
	input := "first\n" + strings.Repeat("x", 200) + "\n" + strings.Repeat("y", 200_000) + "\nlast\n"
	stdout, stderr, code := runCommand(t, input, "pub", "--outbox", dir, topic, "--json")
	require.Equal(t, 1, code)
	lines := strings.Split(strings.TrimSpace(stderr), "\n")
	require.Len(t, lines, 3)
	sent := strings.Split(strings.TrimSpace(stdout), "\n")
	require.Len(t, sent, 4)
	for i, line := range lines[:2] { // one for its payload, one for its size on the wire
		_, id, _ := strings.Cut(line, "message ")
		id, _, _ = strings.Cut(id, " ")
		require.Contains(t, line, `for topic "t" was refused: "`)
		require.Contains(t, sent[1]+sent[2], id, i)
	}
	require.Equal(t, "buffstreams: messages were refused, and are not kept: 2", lines[2])
	require.Equal(t, "first\nlast\n", interrupted(t, sub))
	require.Zero(t, list(t, dir).Pending)
}

// Lines before one that cannot be taken are kept, and the error does not wait for a subscriber.
func TestOutbox_LineOverTheLimitEndsTheInput(t *testing.T) {
	t.Parallel()
	topic, dir := quietTopic(t), outboxDir(t)
	_, stderr, code := runCommand(t, sequence(0, 1000)+strings.Repeat("x", 2<<20), "pub", "--outbox", dir, topic)
	require.Equal(t, 1, code)
	requireOneLine(t, stderr, "line 1001", "--max-message-size", "1000 messages wait in "+dir)
}

// The file system is damaged in a segment that no crash could have torn. Other streams are delivered nevertheless.
func TestOutbox_Damaged(t *testing.T) {
	t.Parallel()
	hurt, sound, dir := quietTopic(t), quietTopic(t), outboxDir(t)
	leave(t, dir, hurt, 3)
	leaveMore(t, dir, sound, "sound\n", 4)
	damage(t, dir, "line 0")
	sub, _ := startSub(t, nil, hurt, "--group", "g")
	other, _ := startSub(t, nil, sound, "--group", "g")
	_, stderr, code := runCommand(t, "", "pub", "--outbox", dir, "--drain")
	require.Equal(t, 1, code)
	lines := strings.Split(strings.TrimSpace(stderr), "\n")
	require.Len(t, lines, 2, stderr)
	require.Contains(t, lines[0], "sequences 1 to ") // 1 or 3, as the lines came in
	require.Contains(t, lines[1], "3 messages wait in "+dir)
	require.Contains(t, lines[1], "(damaged)")
	require.Equal(t, "sound\n", interrupted(t, other))
	require.Empty(t, interrupted(t, sub))

	path := filepath.Join(dir, "wal-meta.db")
	require.NoError(t, os.WriteFile(path, []byte(strings.Repeat("no database", 4096)), 0o600))
	for _, args := range [][]string{{"outbox", "ls", dir}, {"pub", "--outbox", dir, "--drain"}} {
		_, stderr, code := runCommand(t, "", args...)
		require.Equal(t, 1, code)
		requireOneLine(t, stderr, dir)
	}
}

// leaveMore is leave for an outbox that has messages already.
func leaveMore(t *testing.T, dir, topic, lines string, waiting int) {
	t.Helper()
	_, stderr, code := runCommand(t, lines, "pub", "--outbox", dir, topic, "--timeout", "1ms")
	require.Equal(t, 1, code)
	requireOneLine(t, stderr, fmt.Sprintf("%d messages wait in %s: ", waiting, dir))
}

// damage changes the segment that holds a text.
func damage(t *testing.T, dir, text string) {
	t.Helper()
	segments, err := filepath.Glob(filepath.Join(dir, "*.wal"))
	require.NoError(t, err)
	for _, path := range segments {
		content, err := os.ReadFile(path)
		require.NoError(t, err)
		changed := strings.Replace(string(content), text, strings.ToUpper(text), 1)
		if changed != string(content) {
			require.NoError(t, os.WriteFile(path, []byte(changed), 0o600))
			return
		}
	}
	t.Fatalf("no segment has %q", text)
}

func TestOutbox_Errors(t *testing.T) {
	t.Parallel()
	topic, parent := quietTopic(t), t.TempDir()
	dir, none := filepath.Join(parent, "outbox"), filepath.Join(parent, "none")
	leave(t, dir, topic, 1)
	file, empty, full := filepath.Join(parent, "file"), filepath.Join(parent, "empty"), filepath.Join(parent, "full")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	require.NoError(t, os.Mkdir(empty, 0o755))
	write(t, full, "theirs", "")
	for name, test := range map[string]struct {
		args  []string
		parts []string
	}{
		"no topic":                  {[]string{"pub", "--outbox", dir}, nil},
		"bad topic":                 {[]string{"pub", "--outbox", none, "orders"}, []string{"bad address", "orders"}},
		"drain without an outbox":   {[]string{"pub", "--drain"}, []string{"--drain needs --outbox"}},
		"drain of two topics":       {[]string{"pub", "--outbox", dir, "--drain", topic, topic}, []string{"accepts at most 1 arg"}},
		"drain of a file":           {[]string{"pub", "--outbox", dir, "--drain", "--file", file}, []string{"--drain takes no input"}},
		"drain with receipts":       {[]string{"pub", "--outbox", dir, "--drain", "--json"}, []string{"--drain takes no input"}},
		"drain of nothing":          {[]string{"pub", "--outbox", none, "--drain"}, []string{"no outbox in " + none}},
		"drain of something else":   {[]string{"pub", "--outbox", full, "--drain"}, []string{"no outbox in " + full}},
		"no directory":              {[]string{"pub", "--outbox", "", topic}, []string{"--outbox is empty"}},
		"a file":                    {[]string{"pub", "--outbox", file, topic}, []string{"no outbox in " + file, "directory"}},
		"somebody else's directory": {[]string{"pub", "--outbox", full, topic}, []string{"no outbox in " + full, "something else"}},
		"plain wire":                {[]string{"pub", "--outbox", none, topic, "--wire", "buffstreams"}, []string{"--outbox", "--wire buffstreams"}},
		"a level":                   {[]string{"pub", "--outbox", none, topic, "--confirm", "handled"}, []string{"--confirm and --outbox"}},
		"a wait for a listener":     {[]string{"pub", "--outbox", none, topic, "--wait", "1s"}, []string{"--wait and --outbox"}},
		"negative time-out":         {[]string{"pub", "--outbox", none, topic, "--timeout", "-1s"}, []string{"--timeout -1s"}},
		"messages too large for it": {[]string{"pub", "--outbox", none, topic, "--max-message-size", "16000000"}, []string{"16000000", "14680064"}},
		"ls of nothing":             {[]string{"outbox", "ls", none}, []string{"no outbox in " + none, "no such file"}},
		"ls of a file":              {[]string{"outbox", "ls", file}, []string{"no outbox in " + file}},
		"ls of an empty directory":  {[]string{"outbox", "ls", empty}, []string{"no outbox in " + empty, "empty"}},
		"ls of something else":      {[]string{"outbox", "ls", full, "--json"}, []string{"no outbox in " + full, "something else"}},
		"ls of no directory":        {[]string{"outbox", "ls"}, nil},
		"no such subcommand":        {[]string{"outbox", "drop", dir}, []string{"drop"}},
	} {
		t.Run(name, func(t *testing.T) {
			stdout, stderr, code := runCommand(t, "x\n", test.args...)
			require.Equal(t, 1, code)
			require.Empty(t, stdout)
			requireOneLine(t, stderr, test.parts...)
		})
	}
	require.NoDirExists(t, none)
	for path, want := range map[string]int{empty: 0, full: 1} {
		entries, err := os.ReadDir(path)
		require.NoError(t, err)
		require.Len(t, entries, want, "nothing is created")
	}
	info, err := os.Stat(full)
	require.NoError(t, err)
	require.EqualValues(t, 0o755, info.Mode().Perm(), "nor closed to others")
	require.Equal(t, 1, list(t, dir).Pending)
}
