package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestPub_BodyCountAndHeaders(t *testing.T) {
	t.Parallel()
	sub, at := startSub(t, nil, anyPort, "--count", "3", "--json", "--timestamp")
	_, stderr, code := runCommand(t, "", "pub", at, "{{text}}", "--count", "3", "-H", "a=b=c", "--header", "ü=")
	require.Zero(t, code, stderr)
	got, _ := sub.wait()
	dec := json.NewDecoder(strings.NewReader(got))
	ids := map[string]bool{}
	for range 3 {
		var o struct {
			object
			Time    time.Time
			Attempt int
		}
		require.NoError(t, dec.Decode(&o))
		require.Equal(t, "{{text}}", *o.Payload, "no template without --template")
		require.Equal(t, map[string]string{"a": "b=c", "ü": ""}, o.Metadata)
		require.WithinDuration(t, time.Now(), o.Time, time.Minute)
		require.Equal(t, 1, o.Attempt)
		ids[o.UUID] = true
	}
	require.Len(t, ids, 3)
}

func TestPub_Templates(t *testing.T) {
	t.Parallel()
	sub, at := startSub(t, nil, anyPort, "--count", "4", "--headers")
	_, stderr, code := runCommand(t, "", "pub", at, "--template", "n {{.Count}} {{.Random 3 5}} {{.Unix}}", "--count", "2", "-H", "n={{.Count}}")
	require.Zero(t, code, stderr)
	_, stderr, code = runCommand(t, "one {{.Count}}\ntwo {{.Count}}\nthree", "pub", at, "--template", "--count", "2")
	require.Zero(t, code, stderr)
	got, _ := sub.wait()
	require.Regexp(t, `^# [0-9a-f-]{36} n=1\nn 1 [A-Za-z0-9]{3,5} \d+\n# [0-9a-f-]{36} n=2\nn 2 [A-Za-z0-9]{3,5} \d+\n`+
		`# [0-9a-f-]{36}\none 1\n# [0-9a-f-]{36}\ntwo 2\n$`, got)
	for _, args := range [][]string{
		{"{{.Nothing}}"}, {"{{"}, {"{{.Random 5 1}}"}, {"x", "-H", "k={{"}, {"{{.Random 200 200}}", "--max-message-size", "100"},
	} {
		_, stderr, code = runCommand(t, "", append([]string{"pub", at, "--wait", "0s", "--template"}, args...)...)
		require.Equal(t, 1, code, args)
		requireOneLine(t, stderr)
	}
}

func TestPub_RateIsKept(t *testing.T) {
	t.Parallel()
	_, at := startSub(t, nil, anyPort)
	begin := time.Now()
	_, stderr, code := runCommand(t, "", "pub", at, "x", "--count", "11", "--rate", "20")
	require.Zero(t, code, stderr)
	require.GreaterOrEqual(t, time.Since(begin), 500*time.Millisecond) // eleven messages have ten gaps
	begin = time.Now()
	_, stderr, code = runCommand(t, "a\nb\nc\n", "pub", at, "--rate", "10")
	require.Zero(t, code, stderr)
	require.GreaterOrEqual(t, time.Since(begin), 200*time.Millisecond)
}

func TestPub_InterruptedAtARate(t *testing.T) {
	t.Parallel()
	sub, at := startSub(t, nil, anyPort)
	pub := start(t, nil, "pub", at, "x", "--count", "1000000", "--rate", "1000", "--json")
	pub.stdout.line()
	pub.signal(os.Interrupt)
	receipts, code := pub.wait()
	require.Equal(t, exitInterrupted, code)
	sub.signal(os.Interrupt)
	got, _ := sub.wait()
	require.Equal(t, 1+strings.Count(receipts, "\n"), strings.Count(got, "x\n"))
}

func TestSub_Timestamp(t *testing.T) {
	t.Parallel()
	sub, at := startSub(t, nil, anyPort, "--count", "1", "--timestamp")
	_, _, code := runCommand(t, "", "pub", at, "x")
	require.Zero(t, code)
	got, _ := sub.wait()
	require.Regexp(t, `^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z x\n$`, got)
}

// A header can neither look like another line nor like another header.
func TestSub_HeadersMisleadNobody(t *testing.T) {
	t.Parallel()
	sub, at := startSub(t, nil, anyPort, "--count", "1", "--headers")
	_, _, code := runCommand(t, "", "pub", at, "x", "-H", "k=v\n# fake", "-H", "z=a b=c")
	require.Zero(t, code)
	got, _ := sub.wait()
	require.Regexp(t, `^# [0-9a-f-]{36} k="v\\n# fake" z="a b=c"\nx\n$`, got)
}

func TestSub_Dump(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "d")
	payload := "two\nlines\x00\xff"
	for i := range 2 {
		sub, at := startSub(t, nil, anyPort, "--count", "1", "--dump", dir)
		path := filepath.Join(t.TempDir(), "f")
		require.NoError(t, os.WriteFile(path, []byte(payload), 0o600))
		_, stderr, code := runCommand(t, "", "pub", at, "--file", path, "-H", "a=b")
		require.Zero(t, code, stderr)
		got, code := sub.wait()
		require.Zero(t, code, sub.stderr.String())
		require.Empty(t, got)
		name := filepath.Join(dir, []string{"00000001", "00000002"}[i])
		content, err := os.ReadFile(name + ".payload")
		require.NoError(t, err)
		require.Equal(t, payload, string(content))
		text, err := os.ReadFile(name + ".json")
		require.NoError(t, err)
		var o object
		require.NoError(t, json.Unmarshal(text, &o))
		require.Equal(t, map[string]string{"a": "b"}, o.Metadata)
	}
}

// What is only looked at stays for the next subscriber.
func TestSub_NackLeavesTheMessage(t *testing.T) {
	t.Parallel()
	sub, at := startSub(t, nil, ownPort()+"/t", "--group", "g", "--nack", "--count", "2", "--json")
	pub := start(t, nil, "pub", at+"/t", "x", "--confirm", "handled", "--timeout", "90s")
	got, code := sub.wait()
	require.Zero(t, code, sub.stderr.String())
	require.Contains(t, got, `"attempt":2`)
	next, _ := startSub(t, nil, at+"/t", "--group", "g", "--count", "1")
	got, _ = next.wait()
	require.Equal(t, "x\n", got)
	_, code = pub.wait()
	require.Zero(t, code, pub.stderr.String())
}

func TestPubAndSub_FlagsThatContradict(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{
		{"pub", anyPort, "x", "--count", "0"}, {"pub", anyPort, "x", "--rate", "-1"}, {"pub", anyPort, "x", "-H", "=v"},
		{"pub", anyPort, "x", "--file", "f"}, {"pub", anyPort, "x", "-H", "a=b", "--wire", "buffstreams"},
		{"sub", anyPort, "--raw", "--headers"}, {"sub", anyPort, "--raw", "--timestamp"}, {"sub", anyPort, "--dump", "d", "--json"},
		{"sub", anyPort, "--dump", ""}, {"sub", anyPort, "--nack", "--wire", "buffstreams"},
	} {
		_, stderr, code := runCommand(t, "", args...)
		require.Equal(t, 1, code, args)
		requireOneLine(t, stderr)
	}
}
