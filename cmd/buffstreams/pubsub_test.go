package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const anyPort = "127.0.0.1:0"

// sequence is lines n to m-1.
func sequence(n, m int) string {
	var b strings.Builder
	for ; n < m; n++ {
		fmt.Fprintf(&b, "line %d\n", n)
	}
	return b.String()
}

func TestPub_LinesArriveInOrder(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("long", 100_000)
	input := "first\n\n\n" + long + "\n\r\n" + sequence(0, 5000) + "last, without a newline"
	for _, confirm := range []string{"enqueued", "received", "handled"} {
		t.Run(confirm, func(t *testing.T) {
			sub, at := startSub(t, nil, anyPort+"/lines", "--count", "5006")
			stdout, stderr, code := runCommand(t, input, "pub", at+"/lines", "--confirm", confirm)
			require.Zero(t, code, stderr)
			require.Empty(t, stdout)
			require.Empty(t, stderr)
			got, code := sub.wait()
			require.Zero(t, code, sub.stderr.String())
			require.Equal(t, input+"\n", got)
		})
	}
}

// object is what sub --json prints.
type object struct {
	UUID          string            `json:"uuid"`
	Metadata      map[string]string `json:"metadata"`
	Payload       *string           `json:"payload"`
	PayloadBase64 []byte            `json:"payload_base64"`
}

func TestPub_FileArrivesExactly(t *testing.T) {
	t.Parallel()
	payload := []byte("two\nlines\x00\xff")
	path := filepath.Join(t.TempDir(), "f")
	require.NoError(t, os.WriteFile(path, payload, 0o600))
	for _, wire := range []string{"acked", "buffstreams"} {
		for _, format := range []string{"--json", "--raw"} {
			t.Run(wire+format, func(t *testing.T) {
				sub, at := startSub(t, nil, anyPort, "--count", "1", "--wire", wire, format)
				_, stderr, code := runCommand(t, "", "pub", at, "--wire", wire, "--file", path)
				require.Zero(t, code, stderr)
				got, code := sub.wait()
				require.Zero(t, code)
				if format == "--raw" {
					require.Equal(t, string(payload), got)
					return
				}
				var o object
				require.NoError(t, json.Unmarshal([]byte(got), &o))
				require.Equal(t, payload, o.PayloadBase64)
				require.Nil(t, o.Payload, "it is not UTF-8")
				require.NotEmpty(t, o.UUID)
				require.NotNil(t, o.Metadata)
			})
		}
	}
}

func TestSub_JSONAndReceiptsNameTheSameMessage(t *testing.T) {
	t.Parallel()
	sub, at := startSub(t, nil, anyPort+"/t", "--count", "2", "--json", "--group", "g")
	receipts, _, code := runCommand(t, "<ü>\n\n", "pub", at+"/t", "--json")
	require.Zero(t, code)
	got, _ := sub.wait()
	sent, received := json.NewDecoder(strings.NewReader(receipts)), json.NewDecoder(strings.NewReader(got))
	for i, text := range []string{"<ü>", ""} {
		var o object
		var r struct {
			Line int
			UUID string
		}
		require.NoError(t, received.Decode(&o))
		require.NoError(t, sent.Decode(&r))
		require.Equal(t, text, *o.Payload)
		require.Equal(t, text, string(o.PayloadBase64))
		require.Equal(t, o.UUID, r.UUID)
		require.Equal(t, i+1, r.Line)
	}
}

func TestUnixSocket(t *testing.T) {
	t.Parallel()
	topic := "unix://" + filepath.Join(t.TempDir(), "s") + "#name"
	sub, _ := startSub(t, nil, topic, "--count", "1")
	_, stderr, code := runCommand(t, "hello", "pub", topic)
	require.Zero(t, code, stderr)
	got, _ := sub.wait()
	require.Equal(t, "hello\n", got)
}

// hosts counts those that ownPort has given.
var hosts atomic.Int64

// ownPort is anyPort for a port that is listened at again, or later: where all of 127.0.0.0/8 is this machine, it has a host of its own,
// so that no connection and no listener of others gets the port meanwhile.
func ownPort() string {
	if runtime.GOOS != "linux" {
		return anyPort
	}
	pid := int64(os.Getpid())
	return fmt.Sprintf("127.%d.%d.%d:0", 1+pid/250%250, 1+pid%250, 1+hosts.Add(1)%250)
}

// freeAddress is one where nobody listens.
func freeAddress(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", ownPort())
	require.NoError(t, err)
	defer func() { require.NoError(t, ln.Close()) }()
	return ln.Addr().String()
}

func TestPub_MayBeFirst(t *testing.T) {
	t.Parallel()
	address := freeAddress(t)
	for _, wire := range []string{"acked", "buffstreams"} {
		pub := start(t, nil, "pub", address, "--wire", wire, "--wait", "30s")
		_, err := io.WriteString(pub.stdin, "early\n")
		require.NoError(t, err)
		require.NoError(t, pub.stdin.Close())
		sub, _ := startSub(t, nil, address, "--count", "1", "--wire", wire)
		_, code := pub.wait()
		require.Zero(t, code, pub.stderr.String())
		got, _ := sub.wait()
		require.Equal(t, "early\n", got)
	}
}

func TestErrors_AreOneLine(t *testing.T) {
	t.Parallel()
	nobody := freeAddress(t)
	_, listening := startSub(t, nil, anyPort)
	big := filepath.Join(t.TempDir(), "big")
	cert, key := certificate(t, t.TempDir(), time.Hour)
	require.NoError(t, os.WriteFile(big, make([]byte, 5001), 0o600))
	for name, test := range map[string]struct {
		stdin string
		args  []string
		parts []string
	}{
		"pub without a port":        {"", []string{"pub", "orders"}, []string{"bad address", "orders"}},
		"pub to a bad port":         {"", []string{"pub", "127.0.0.1:70000"}, []string{"bad address", "70000"}},
		"pub with a bad scheme":     {"", []string{"pub", "http://127.0.0.1:80"}, []string{"bad address", "scheme"}},
		"pub to an unknown host":    {"", []string{"pub", "no.such.host.invalid:1"}, []string{"no.such.host.invalid:1"}},
		"pub where nothing listens": {"x", []string{"pub", nobody, "--wait", "200ms"}, []string{"nothing listens at " + nobody}},
		"and nothing to say":        {"", []string{"pub", nobody, "--wait", "0s"}, []string{"nothing listens at " + nobody}},
		"plain where nothing is":    {"x", []string{"pub", nobody, "--wait", "0s", "--wire", "buffstreams"}, []string{"nothing listens"}},
		"line over the limit":       {"short\n" + strings.Repeat("x", 101), []string{"pub", listening, "--max-message-size", "100"}, []string{"line 2", "100", "--max-message-size"}},
		"file over the limit":       {"", []string{"pub", listening, "--file", big, "--max-message-size", "5000"}, []string{big, "5001", "5000"}},
		"file over the plain limit": {"", []string{"pub", listening, "--file", big, "--wire", "buffstreams"}, []string{big, "5001", "4096"}},
		"no such file":              {"", []string{"pub", listening, "--file", big + "no"}, []string{big + "no"}},
		"plain wire and a name":     {"", []string{"pub", listening + "/name", "--wire", "buffstreams"}, []string{"no topic names"}},
		"plain wire and acks":       {"", []string{"pub", listening, "--wire", "buffstreams", "--confirm", "handled"}, []string{"knows no acks"}},
		"unknown wire":              {"", []string{"pub", listening, "--wire", "smoke"}, []string{"smoke"}},
		"nothing subscribed":        {"x", []string{"pub", listening + "/other", "--timeout", "3s"}, []string{"other", "3s", "(0 not sent, 1 unconfirmed)"}},
		"sub without a port":        {"", []string{"sub", "orders"}, []string{"bad address", "orders"}},
		"sub on a port in use":      {"", []string{"sub", listening}, []string{listening, "in use"}},
		"plain sub on it":           {"", []string{"sub", listening, "--wire", "buffstreams"}, []string{listening, "in use"}},
		"sub for everybody":         {"", []string{"sub", "0.0.0.0:0"}, []string{"--insecure", "--tls-cert"}},
		"plain sub for everybody":   {"", []string{"sub", ":0", "--wire", "buffstreams"}, []string{"--insecure"}},
		"sub with TLS":              {"", []string{"sub", "tls://127.0.0.1:0"}, []string{"needs a certificate", "--tls-cert and --tls-key\n"}},
		"with TLS at a foreign one": {"", []string{"sub", "tls://192.0.2.1:0", "--tls-cert", cert, "--tls-key", key}, []string{"192.0.2.1:0", "assign"}},
		"sub at a foreign address":  {"", []string{"sub", "192.0.2.1:0", "--insecure"}, []string{"192.0.2.1:0"}},
		"sub of no message":         {"", []string{"sub", anyPort, "--count", "0"}, []string{"--count"}},
		"no topic":                  {"", []string{"sub"}, nil},
		"unknown command":           {"", []string{"subscribe"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			stdout, stderr, code := runCommand(t, test.stdin, test.args...)
			require.NotZero(t, code)
			require.Empty(t, stdout)
			requireOneLine(t, stderr, test.parts...)
		})
	}
}

func TestPub_LinesBeforeOneOverTheLimitArrive(t *testing.T) {
	t.Parallel()
	sub, at := startSub(t, nil, anyPort, "--count", "1000")
	_, stderr, code := runCommand(t, sequence(0, 1000)+strings.Repeat("x", 2<<20), "pub", at)
	require.Equal(t, 1, code)
	requireOneLine(t, stderr, "line 1001")
	got, _ := sub.wait()
	require.Equal(t, sequence(0, 1000), got)
}

// The limits are about payloads: what is exactly as long passes, whatever surrounds it on the wire.
func TestPub_LimitIsExact(t *testing.T) {
	t.Parallel()
	for _, wire := range []string{"acked", "buffstreams"} {
		sub, at := startSub(t, nil, anyPort, "--count", "1", "--wire", wire, "--max-message-size", "2000000")
		text := strings.Repeat("x", 2_000_000)
		_, stderr, code := runCommand(t, text, "pub", at, "--wire", wire, "--max-message-size", "2000000")
		require.Zero(t, code, stderr)
		got, _ := sub.wait()
		require.Equal(t, text+"\n", got)
	}
}

func TestPub_FailsWhenTheSubscriberRefuses(t *testing.T) {
	t.Parallel()
	for _, size := range []int{200, 200_000} { // over its payload limit; over what it takes of any kind
		sub, at := startSub(t, nil, anyPort, "--max-message-size", "100")
		_, stderr, code := runCommand(t, "ok\n"+strings.Repeat("x", size), "pub", at, "--timeout", "10s")
		require.Equal(t, 1, code)
		require.Contains(t, stderr, at)
		line := sub.stdout.line()
		require.Equal(t, "ok\n", line)
	}
}

// A subscriber that is killed loses nothing of what was confirmed: the publisher sends it again to its successor.
// Nobody reads its output, so that it has messages in every state when it dies: written, taken but not written, and
// only received.
func TestSub_KilledMissesNothingConfirmed(t *testing.T) {
	t.Parallel()
	const all = 30_000
	// Half of a pipe's 64 KiB at least takes what is handled: a write that does not fit into the last page begins a new one.
	for confirm, before := range map[string]int{"received": 20_000, "handled": 2000} {
		t.Run(confirm, func(t *testing.T) {
			r, w, err := os.Pipe()
			require.NoError(t, err)
			sub, at := startSub(t, w, ownPort()+"/t", "--group", "g")
			require.NoError(t, w.Close())
			pub := start(t, nil, "pub", at+"/t", "--confirm", confirm, "--json", "--timeout", "90s") // it waits for the next one, too
			go func() {                                                                              // ends with pub's standard input
				_, _ = io.WriteString(pub.stdin, sequence(0, all)) // what is missing shows below
				_ = pub.stdin.Close()
			}()
			for range before {
				require.NotEmpty(t, pub.stdout.line())
			}
			sub.signal(syscall.SIGKILL)
			_, _ = sub.wait()
			written, err := io.ReadAll(r)
			require.NoError(t, err)

			rest, err := os.Create(filepath.Join(t.TempDir(), "rest"))
			require.NoError(t, err)
			next, _ := startSub(t, rest, at+"/t", "--group", "g")
			require.NoError(t, rest.Close())
			receipts, code := pub.wait()
			require.Zero(t, code, pub.stderr.String())
			require.Equal(t, all, before+strings.Count(receipts, "\n"))
			next.signal(os.Interrupt)
			_, code = next.wait()
			require.Zero(t, code)
			second, err := os.ReadFile(rest.Name())
			require.NoError(t, err)
			require.Empty(t, missing(all, written, second))
		})
	}
}

// missing lists the lines of sequence(0, n) that no output has.
func missing(n int, outputs ...[]byte) (lines []int) {
	seen := map[string]bool{}
	for _, out := range outputs {
		for line := range bytes.Lines(out) {
			seen[string(line)] = true
		}
	}
	for i := range n {
		if !seen[fmt.Sprintf("line %d\n", i)] {
			lines = append(lines, i)
		}
	}
	return lines
}

func TestSub_InterruptDrains(t *testing.T) {
	t.Parallel()
	for _, wire := range []string{"acked", "buffstreams"} {
		t.Run(wire, func(t *testing.T) {
			sub, at := startSub(t, nil, anyPort, "--wire", wire)
			_, stderr, code := runCommand(t, sequence(0, 3000), "pub", at, "--wire", wire, "--confirm", "enqueued")
			require.Zero(t, code, stderr)
			line := sub.stdout.line() // its connection was taken
			sub.signal(os.Interrupt)
			rest, code := sub.wait()
			require.Zero(t, code, sub.stderr.String())
			require.Equal(t, sequence(0, 3000), line+rest)
		})
	}
}

func TestPub_InterruptedConfirmsWhatItRead(t *testing.T) {
	t.Parallel()
	sub, at := startSub(t, nil, anyPort)
	pub := start(t, nil, "pub", at, "--json")
	_, err := io.WriteString(pub.stdin, sequence(0, 1000))
	require.NoError(t, err)
	for range 1000 {
		pub.stdout.line()
	}
	pub.signal(syscall.SIGTERM) // its input is still open
	_, code := pub.wait()
	require.Equal(t, exitInterrupted, code)
	sub.signal(os.Interrupt)
	got, _ := sub.wait()
	require.Equal(t, sequence(0, 1000), got)
}

func TestSub_EndsWithItsReader(t *testing.T) {
	t.Parallel()
	r, w, err := os.Pipe()
	require.NoError(t, err)
	sub, at := startSub(t, w, ownPort()+"/t", "--group", "g")
	require.NoError(t, w.Close())
	pub := start(t, nil, "pub", at+"/t", "--confirm", "handled", "--timeout", "90s")
	_, err = io.WriteString(pub.stdin, "seen\n")
	require.NoError(t, err)
	line, err := bufio.NewReader(r).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "seen\n", line)
	require.NoError(t, r.Close())
	_, err = io.WriteString(pub.stdin, "unseen\n")
	require.NoError(t, err)
	_, code := sub.wait()
	require.Zero(t, code, sub.stderr.String())

	next, _ := startSub(t, nil, at+"/t", "--group", "g", "--count", "1")
	got, _ := next.wait()
	require.Equal(t, "unseen\n", got, "it was not acked")
	require.NoError(t, pub.stdin.Close())
	_, code = pub.wait()
	require.Zero(t, code, pub.stderr.String())
}

// What the subscriber had received went with it, and nobody came back: the publisher does not call that a success.
func TestPub_ReportsAPeerThatWentAway(t *testing.T) {
	t.Parallel()
	r, w, err := os.Pipe() // never read, so that sub gets stuck
	require.NoError(t, err)
	defer func() { _ = r.Close() }()
	sub, at := startSub(t, w, anyPort)
	require.NoError(t, w.Close())
	pub := start(t, nil, "pub", at, "--json", "--timeout", "5s")
	_, err = io.WriteString(pub.stdin, strings.Repeat(strings.Repeat("x", 100_000)+"\n", 10))
	require.NoError(t, err)
	require.NoError(t, pub.stdin.Close())
	for range 10 {
		pub.stdout.line()
	}
	sub.signal(syscall.SIGKILL)
	_, code := pub.wait()
	require.Equal(t, 1, code)
	requireOneLine(t, pub.stderr.String(), "went away", "messages that it had received but not handled")
}
