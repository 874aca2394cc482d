package main

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// get returns the status and the body of a path of a bridge.
func get(t *testing.T, url string) (int, string) {
	t.Helper()
	response, err := http.Get(url)
	require.NoError(t, err)
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	return response.StatusCode, string(body)
}

func TestBridge_CarriesLinesAndDrainsOnSIGTERM(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "bri")
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	from, to := "unix://"+filepath.Join(dir, "a"), "unix://"+filepath.Join(dir, "b")
	b := start(t, nil, "bridge", "--from", from, "--to", to, "--topic", "lines=out", "--listen", anyPort, "--progress", "20ms")
	at := b.awaitLine("serving /readyz at ")
	const n = 2000
	sub, _ := startSub(t, nil, to+"#out", "--count", "2000")
	_, stderr, code := runCommand(t, sequence(0, n), "pub", from+"#lines")
	require.Zero(t, code, stderr)
	got, code := sub.wait()
	require.Zero(t, code, sub.stderr.String())
	require.Equal(t, sequence(0, n), got)
	require.Eventually(t, func() bool { status, _ := get(t, at+"/readyz"); return status == http.StatusOK }, limit, limit/10000)
	require.Eventually(t, func() bool { // sub's answers come after it has printed
		_, body := get(t, at+"/progress")
		return strings.Contains(body, `"Forwarded":2000`)
	}, limit, limit/10000)
	status, _ := get(t, at+"/healthz")
	require.Equal(t, http.StatusOK, status)
	b.signal(syscall.SIGTERM)
	_, code = b.wait()
	require.Zero(t, code, b.stderr.String())
	require.Contains(t, b.stderr.String(), "forwarded 2000, in hand 0")
}

func TestBridge_ErrorsAreOneLine(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		args  []string
		parts []string
	}{
		{[]string{"--from", "tcp://127.0.0.1:1"}, []string{"--to"}},
		{[]string{"--from", "tcp://127.0.0.1:1", "--to", "tcp://127.0.0.1:2?colour=1", "--topic", "t"}, []string{"destination", "colour", "unknown"}},
		{[]string{"--from", "nats://u:geheim@127.0.0.1:1", "--to", "tcp://127.0.0.1:2", "--topic", "t"}, []string{"--from has a secret", "password_file"}},
		{[]string{"--from", "kafka://127.0.0.1:1", "--to", "tcp://127.0.0.1:2", "--topic", "t", "--start-timeout", "2s"}, []string{"source", "kafka"}},
		{[]string{"--from", "pigeon://x", "--to", "tcp://127.0.0.1:2", "--topic", "t"}, []string{"pigeon", "nats", "kafka"}},
		{[]string{"--from", "tcp://127.0.0.1:1", "--to", "tcp://127.0.0.1:2?confirm=received&batch=4", "--topic", "t"}, []string{"batch", "cannot"}},
	} {
		_, stderr, code := runCommand(t, "", append([]string{"bridge"}, test.args...)...)
		require.Equal(t, 1, code, test.args)
		requireOneLine(t, stderr, test.parts...)
		require.NotContains(t, stderr, "geheim")
	}
	// From the environment a secret is taken, and shown to none.
	_, stderr, code := runWith(t, []string{"BUFFSTREAMS_FROM=nats://u:geheim@127.0.0.1:1"}, "bridge", "--to", "tcp://127.0.0.1:2", "--topic", "t")
	require.Equal(t, 1, code)
	requireOneLine(t, stderr, "source", "127.0.0.1:1")
	require.NotContains(t, stderr, "geheim")
}

// The URL's parameters are what a user of the command can change, not the fields of a configuration in Go.
func TestBridge_ListensWithTLSBeyondLoopback(t *testing.T) {
	t.Parallel()
	for url, parts := range map[string][]string{
		"tcp://0.0.0.0:0": {"--from: refusing to listen in plaintext at 0.0.0.0:0", "tls_cert and tls_key", "insecure=true"},
		"tls://0.0.0.0:0": {"tls://0.0.0.0:0", "no certificate; add tls_cert and tls_key"},
	} {
		_, stderr, code := runCommand(t, "", "bridge", "--from", url, "--to", "tcp://127.0.0.1:1", "--topic", "x")
		require.Equal(t, 1, code)
		for _, part := range parts {
			require.Contains(t, stderr, part)
		}
		require.NotContains(t, stderr, "TLSConfig")
		require.NotContains(t, stderr, "ServerTLS")
	}
}
