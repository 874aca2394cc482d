package main

import (
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// tapped is what tap --json prints.
type tapped struct {
	Time, Direction, Event, Detail, Kind string
	Connection                           int64
	Damaged                              bool
	Body                                 map[string]any
	Messages                             []struct {
		UUID     string
		Metadata map[string]string
		Payload  []byte `json:"payload_base64"`
	}
}

func startTap(t *testing.T, target string, args ...string) (p *process, at string) {
	t.Helper()
	p = start(t, nil, append([]string{"tap", anyPort, target}, args...)...)
	return p, p.awaitLine("listening at ")
}

func TestTap_PrintsBothDirections(t *testing.T) {
	t.Parallel()
	sub, target := startSub(t, nil, anyPort+"/t", "--count", "2")
	tap, at := startTap(t, target, "--json", "--payloads")
	_, stderr, code := runCommand(t, "one\ntwo\n", "pub", at+"/t", "-H", "k=v", "--confirm", "handled")
	require.Zero(t, code, stderr)
	got, _ := sub.wait()
	require.Equal(t, "one\ntwo\n", got)
	tap.signal(os.Interrupt)
	stdout, code := tap.wait()
	require.Zero(t, code, tap.stderr.String())
	seen := map[string]int{}
	var payloads []string
	for line := range strings.Lines(stdout) {
		var e tapped
		require.NoError(t, json.Unmarshal([]byte(line), &e), line)
		seen[e.Direction+e.Kind+e.Event]++
		require.False(t, e.Damaged, "checksums are those of the wire")
		for _, m := range e.Messages {
			payloads = append(payloads, string(m.Payload))
			require.Equal(t, map[string]string{"k": "v"}, m.Metadata)
			require.Len(t, m.UUID, 36)
		}
		if e.Kind == "open" && e.Direction == ">" {
			require.Equal(t, "t", e.Body["topic"])
		}
	}
	require.Equal(t, []string{"one", "two"}, payloads)
	for _, kind := range []string{"open", ">hello", "<welcome", ">open", "<opened", ">publish", "<ack"} {
		require.Positive(t, seen[kind], "%s in %v", kind, seen)
	}
}

func TestTap_ForReaders(t *testing.T) {
	t.Parallel()
	_, target := startSub(t, nil, anyPort+"/t")
	tap, at := startTap(t, target)
	_, stderr, code := runCommand(t, "secret payload", "pub", at+"/t")
	require.Zero(t, code, stderr)
	tap.signal(os.Interrupt)
	stdout, _ := tap.wait()
	require.Regexp(t, `(?m)^\d\d:\d\d:\d\d\.\d{6} \d > hello size=\d+ version=1 max_frame=\d+ agent="watermill-buffstreams"`, stdout)
	require.Regexp(t, `(?m) \d > publish size=\d+ handle=1 .*messages=1 bytes=\d+$`, stdout)
	require.NotContains(t, stdout, "secret payload", "not without --payloads")
}

// Tokens, and the secrets that publisher ids are bound to, are not for those who read over a shoulder.
func TestTap_PrintsNoSecret(t *testing.T) {
	t.Parallel()
	token := filepath.Join(t.TempDir(), "token")
	require.NoError(t, os.WriteFile(token, []byte("hush-hush"), 0o600))
	for _, format := range [][]string{nil, {"--json", "--payloads"}} {
		_, target := startSub(t, nil, anyPort+"/t", "--token-file", token)
		tap, at := startTap(t, target, format...)
		_, stderr, code := runCommand(t, "", "pub", at+"/t", "x", "--token-file", token, "--insecure")
		require.Zero(t, code, stderr)
		tap.signal(os.Interrupt)
		stdout, _ := tap.wait()
		require.Contains(t, stdout, "token")
		require.NotContains(t, stdout, "hush-hush")
		require.NotContains(t, stdout, "aHVzaC1odXNo", "nor in base64")
		if format == nil {
			require.Contains(t, stdout, "secret=REDACTED")
		}
	}
}

func TestTap_PlainWire(t *testing.T) {
	t.Parallel()
	sub, target := startSub(t, nil, anyPort, "--wire", "buffstreams", "--count", "1")
	tap, at := startTap(t, target, "--wire", "buffstreams", "--payloads")
	_, stderr, code := runCommand(t, "hello", "pub", at, "--wire", "buffstreams")
	require.Zero(t, code, stderr)
	got, _ := sub.wait()
	require.Equal(t, "hello\n", got)
	tap.signal(os.Interrupt)
	stdout, _ := tap.wait()
	require.Contains(t, stdout, `> message 5 bytes "hello"`)
}

// What is no frame passes all the same, both ways, and a half-closed connection still answers.
func TestTap_PassesOnWhatItDoesNotKnow(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", anyPort)
	require.NoError(t, err)
	defer func() { _ = ln.Close() }()
	go func() { // ends with its connection
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		defer func() { _ = conn.Close() }()
		text, _ := readAll(conn)
		_, _ = conn.Write([]byte("you said " + text))
	}()
	tap, at := startTap(t, ln.Addr().String(), "--json")
	conn, err := net.Dial("tcp", at)
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	_, err = conn.Write([]byte("\xff\xff\xff\xffGET / HTTP/1.1\r\n"))
	require.NoError(t, err)
	require.NoError(t, conn.(*net.TCPConn).CloseWrite())
	got, err := readAll(conn)
	require.NoError(t, err)
	require.Equal(t, "you said \xff\xff\xff\xffGET / HTTP/1.1\r\n", got)
	tap.signal(os.Interrupt)
	stdout, code := tap.wait()
	require.Zero(t, code)
	require.Contains(t, stdout, "undecodable")
}

func TestTap_Errors(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{
		{anyPort}, {anyPort, "tls://127.0.0.1:1"}, {anyPort, "127.0.0.1:1/name"}, {"0.0.0.0:0", "127.0.0.1:1"}, {":0", "127.0.0.1:1"},
		{"orders", "127.0.0.1:1"}, {anyPort, "127.0.0.1:1", "--wire", "smoke"}, {anyPort, "127.0.0.1:1", "--max-message-size", "10"},
	} {
		_, stderr, code := runCommand(t, "", append([]string{"tap"}, args...)...)
		require.Equal(t, 1, code, args)
		requireOneLine(t, stderr)
	}
	tap, at := startTap(t, freeAddress(t))
	conn, err := net.Dial("tcp", at)
	require.NoError(t, err)
	_, err = readAll(conn)
	require.NoError(t, err, "the target is not there: it ends")
	require.Contains(t, tap.awaitLine("connection 1: "), "refused")
}
