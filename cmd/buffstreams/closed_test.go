package main

import (
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/monitor"
)

// closedPipe is an output whose reader has gone.
func closedPipe(t *testing.T) *os.File {
	t.Helper()
	r, w, err := os.Pipe()
	require.NoError(t, err)
	require.NoError(t, r.Close())
	t.Cleanup(func() { _ = w.Close() })
	return w
}

// Whatever only prints is content when its reader is, as head is with its lines: it ends, says nothing, and returns 0.
func TestOutput_ReaderThatHasGone(t *testing.T) {
	t.Parallel()
	dir, monitored := outboxDir(t), watched(t, monitor.Config{})
	leave(t, dir, quietTopic(t), 3)
	for _, args := range [][]string{
		{"version"}, {"--help"}, {"help", "pub"}, {"completion", "bash"}, {"docs"}, {"outbox", "ls", dir}, {"outbox", "show", dir},
		{"outbox", "ls", dir, "--json"}, {"dedupe", "ls", dedupeFile(t)}, {"top", monitored}, {"top", monitored, "--json", "--count", "3"},
		{"bench", "both", "--count", "100", "--warmup", "0s"}, {"latency", "--duration", "100ms", "--warmup", "0s", "--json"},
		{"check", "ready", monitored},
	} {
		p := start(t, closedPipe(t), args...)
		_, code := p.wait()
		require.Zero(t, code, "%q: %s", args, p.stderr.String())
		require.NotContains(t, p.stderr.String(), "broken pipe", "%q", args)
	}
}

// A relay whose reader has gone ends, rather than to pass on what it does not show.
func TestTap_EndsWithItsReader(t *testing.T) {
	t.Parallel()
	_, target := startSub(t, nil, anyPort+"/t")
	tap := start(t, closedPipe(t), "tap", anyPort, target)
	conn, err := net.Dial("tcp", tap.awaitLine("listening at "))
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	require.NoError(t, conn.SetDeadline(time.Now().Add(limit)))
	_, err = conn.Read(make([]byte, 1))
	require.Error(t, err)
	_, code := tap.wait()
	require.Zero(t, code, tap.stderr.String())
}

// Receipts that cannot be printed are an error: the input was not published to its end.
func TestPub_ReaderOfReceiptsThatHasGone(t *testing.T) {
	t.Parallel()
	_, at := startSub(t, nil, anyPort+"/t")
	p := start(t, closedPipe(t), "pub", at+"/t", "text", "--json")
	_, code := p.wait()
	require.Equal(t, 1, code)
	requireOneLine(t, p.stderr.String(), "receipt cannot be printed")
}

// An interrupt ends what waits for a peer that says nothing, long before its time.
func TestInterrupt_WhileThePeerIsSilent(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		code int
		args []string
	}{
		{exitInterrupted, []string{"bench", "pub", "ADDRESS/t", "--timeout", "1m"}},
		{exitInterrupted, []string{"request", "ADDRESS/t", "text", "--timeout", "1m"}},
		{3, []string{"check", "publish", "ADDRESS/t", "--timeout", "1m"}},
		{3, []string{"check", "connect", "ADDRESS", "--timeout", "1m"}},
	} {
		ln, err := net.Listen("tcp", anyPort)
		require.NoError(t, err)
		t.Cleanup(func() { _ = ln.Close() })
		for i, arg := range c.args {
			c.args[i] = strings.ReplaceAll(arg, "ADDRESS", ln.Addr().String())
		}
		p := start(t, nil, c.args...)
		conn, err := ln.Accept()
		require.NoError(t, err)
		t.Cleanup(func() { _ = conn.Close() })
		began := time.Now()
		p.signal(os.Interrupt)
		stdout, code := p.wait()
		require.Equal(t, c.code, code, "%q: %s", c.args, p.stderr.String())
		require.Less(t, time.Since(began), 40*time.Second, "%q", c.args)
		require.Contains(t, stdout+p.stderr.String(), "interrupted", "%q", c.args)
	}
}
