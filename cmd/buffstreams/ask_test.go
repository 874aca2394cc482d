package main

import (
	"bufio"
	"encoding/json"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// stalling is the address of a relay to target: on each connection it stands still for a while once so many bytes have passed.
func stalling(t *testing.T, target string, after int64, stall time.Duration) string {
	t.Helper()
	ln, err := net.Listen("tcp", anyPort)
	require.NoError(t, err)
	t.Cleanup(func() { _ = ln.Close() })
	relay := func(conn net.Conn) {
		defer func() { _ = conn.Close() }()
		up, err := net.Dial("tcp", target)
		if err != nil {
			return // the run fails
		}
		defer func() { _ = up.Close() }()
		go func() { _, _ = io.Copy(conn, up) }() // ends with both connections
		if _, err := io.CopyN(up, conn, after); err == nil {
			time.Sleep(stall) // real time is the subject
			_, _ = io.Copy(up, conn)
		}
	}
	go func() { // ends with the listener
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go relay(conn) // ends with its connections, whose ends are processes of the test
		}
	}()
	return ln.Addr().String()
}

func TestRequest_GetsItsReply(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		reply, request []string
		stdin, want    string
	}{
		"echo":          {[]string{"--echo"}, []string{"hello"}, "", "hello\n"},
		"text":          {[]string{"--text", "always"}, []string{"x"}, "", "always\n"},
		"program":       {[]string{"--exec", "tr a-z A-Z"}, []string{"loud"}, "", "LOUD\n"},
		"standard in":   {[]string{"--echo"}, []string{"--raw"}, "two\nlines", "two\nlines"},
		"empty request": {[]string{"--echo"}, []string{""}, "", "\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reply := start(t, nil, append([]string{"reply", anyPort + "/t", "--count", "1"}, test.reply...)...)
			at := reply.awaitLine("listening at ")
			stdout, stderr, code := runCommand(t, test.stdin, append([]string{"request", at + "/t"}, test.request...)...)
			require.Zero(t, code, stderr)
			require.Equal(t, test.want, stdout)
			require.Empty(t, stderr)
			_, code = reply.wait()
			require.Zero(t, code, reply.stderr.String())
		})
	}
}

func TestRequest_JSONHasTheCorrelation(t *testing.T) {
	t.Parallel()
	reply := start(t, nil, "reply", anyPort+"/t", "--echo")
	at := reply.awaitLine("listening at ")
	stdout, _, code := runCommand(t, "", "request", at+"/t", "x", "--json", "-H", "a=b")
	require.Zero(t, code)
	var o object
	require.NoError(t, json.Unmarshal([]byte(stdout), &o))
	require.Len(t, o.Metadata["correlation_id"], 36)
	require.NotContains(t, o.Metadata, "a", "it is another message")
}

func TestRequest_SaysWhyThereIsNoReply(t *testing.T) {
	t.Parallel()
	failing := start(t, nil, "reply", anyPort+"/t", "--exec", "cat /no/such/file")
	at := failing.awaitLine("listening at ")
	_, stderr, code := runCommand(t, "", "request", at+"/t", "x")
	require.Equal(t, 1, code)
	requireOneLine(t, stderr, "failed at the other side", "No such file")

	_, stderr, code = runCommand(t, "", "request", at+"/t", "x", "-H", "novalue")
	require.Equal(t, 1, code)
	requireOneLine(t, stderr, "key=value")

	silent, at := startSub(t, nil, anyPort+"/t")
	_, stderr, code = runCommand(t, "", "request", at+"/t", "x", "--timeout", "3s") // for the connection too
	require.Equal(t, 1, code)
	requireOneLine(t, stderr, "no reply", "3s")
	silent.signal(os.Interrupt)

	_, stderr, code = runCommand(t, "", "request", freeAddress(t), "x", "--timeout", "300ms")
	require.Equal(t, 1, code)
	requireOneLine(t, stderr, "timed out")
}

// A program that answers gets the environment, but not the token.
func TestReply_ProgramGetsNoToken(t *testing.T) {
	t.Parallel()
	token := filepath.Join(t.TempDir(), "token")
	require.NoError(t, os.WriteFile(token, []byte("hush"), 0o600))
	cmd := exec.Command(binary, "reply", anyPort+"/t", "--exec", "env", "--count", "1")
	cmd.Env = append(os.Environ(), "BUFFSTREAMS_TOKEN=hush", "OTHER=there")
	stderr, err := cmd.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	line, err := bufio.NewReader(stderr).ReadString('\n')
	require.NoError(t, err)
	_, at, _ := strings.Cut(strings.TrimSpace(line), "listening at ")
	stdout, errors, code := runCommand(t, "", "request", at+"/t", "x", "--token-file", token, "--insecure")
	require.Zero(t, code, errors)
	require.Contains(t, stdout, "OTHER=there")
	require.NotContains(t, stdout, "hush")
	require.NoError(t, cmd.Wait())
}

// A request says where its reply goes: without leave that is no way to have this process dial elsewhere.
func TestReply_GoesToLoopbackOnly(t *testing.T) {
	t.Parallel()
	reply := start(t, nil, "reply", anyPort+"/t", "--echo")
	at := reply.awaitLine("listening at ")
	_, stderr, code := runCommand(t, "", "pub", at+"/t", "x", "-H", "reply_to=192.0.2.1:80/t", "--confirm", "handled")
	require.Zero(t, code, stderr)
	require.Contains(t, reply.awaitLine("no reply to "), "192.0.2.1:80/t")
	_, stderr, code = runCommand(t, "", "pub", at+"/t", "x", "--confirm", "handled")
	require.Zero(t, code, stderr)
	require.Contains(t, reply.awaitLine("says not where"), "reply_to")
}

func TestReply_Errors(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{
		{}, {"--echo", "--text", "x"}, {"--exec", " "}, {"--echo", "--count", "-1"}, {"--echo", "--workers", "0"}, {"--echo", "--reply-to", "10.0.0.0"},
	} {
		_, stderr, code := runCommand(t, "", append([]string{"reply", anyPort}, args...)...)
		require.Equal(t, 1, code, args)
		requireOneLine(t, stderr)
	}
	_, stderr, code := runCommand(t, "", "reply", "orders", "--echo")
	require.Equal(t, 1, code)
	requireOneLine(t, stderr, "bad address")
}

func TestVersion(t *testing.T) {
	t.Parallel()
	stdout, stderr, code := runCommand(t, "", "version")
	require.Zero(t, code)
	require.Empty(t, stderr)
	require.True(t, strings.HasPrefix(stdout, "buffstreams "), stdout)
	require.Contains(t, stdout, "protocol 1")
	stdout, _, code = runCommand(t, "", "version", "--json")
	require.Zero(t, code)
	var v struct{ Version, Go, Platform string }
	require.NoError(t, json.Unmarshal([]byte(stdout), &v))
	require.NotEmpty(t, v.Version)
}

func TestCompletion(t *testing.T) {
	t.Parallel()
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		stdout, stderr, code := runCommand(t, "", "completion", shell)
		require.Zero(t, code, stderr)
		require.Contains(t, stdout, "buffstreams")
	}
	stdout, _, code := runCommand(t, "", "__complete", "bench", "b")
	require.Zero(t, code)
	require.Contains(t, stdout, "both")
}
