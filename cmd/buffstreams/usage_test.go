package main

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/monitor"
	"github.com/buffstreams/watermill-buffstreams/store"
)

// Whatever is called wrong says in one line what was wrong and how it is right, before it dials, listens or waits.
func TestUsage_OneLineThatHelps(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		args  []string
		parts []string
	}{
		{[]string{"publish"}, []string{`unknown command "publish"`, "buffstreams --help"}},
		{[]string{"outbox", "list"}, []string{`"list"`, "buffstreams outbox --help"}},
		{[]string{"dedupe", "list"}, []string{`"list"`, "buffstreams dedupe --help"}},
		{[]string{"bench", "all"}, []string{`"all"`, "buffstreams bench --help"}},
		{[]string{"completion", "tcsh"}, []string{`"tcsh"`, "buffstreams completion --help"}},
		{[]string{"help", "publish"}, []string{`"publish"`, "buffstreams --help"}},
		{[]string{"help", "outbox", "list"}, []string{`"list"`, "buffstreams --help"}},
		{[]string{"version", "1"}, []string{`"1"`, "usage: buffstreams version"}},
		{[]string{"pub"}, []string{"received 0", "usage: buffstreams pub TOPIC [BODY]"}},
		{[]string{"sub", "a", "b"}, []string{"received 2", "usage: buffstreams sub TOPIC"}},
		{[]string{"tap", "127.0.0.1:1"}, []string{"received 1", "usage: buffstreams tap LISTEN TARGET"}},
		{[]string{"outbox", "mv"}, []string{"received 0", "usage: buffstreams outbox mv DIR"}},
		{[]string{"sub", "127.0.0.1:1", "--jsn"}, []string{"--jsn", "buffstreams sub --help"}},
		{[]string{"latency", "--rate", "fast"}, []string{`"fast"`, "buffstreams latency --help"}},
		{[]string{"latency", "--rate", "0"}, []string{"--rate 0 is not above 0"}},
		{[]string{"pub", "127.0.0.1:1/x", "text", "--rate", "NaN"}, []string{"--rate NaN is not positive"}},
		{[]string{"pub", "127.0.0.1:1/x", "text", "--count", "0"}, []string{"--count 0 is not positive"}},
		{[]string{"pub", "127.0.0.1:1/x", "{{.Count", "--template", "--wait", "1h"}, []string{"--template", "unclosed"}},
		{[]string{"pub", "tls://127.0.0.1:1/x", "text", "--tls-ca", "/no/such.pem", "--wait", "1h"}, []string{"/no/such.pem"}},
		{[]string{"pub", "tls://127.0.0.1:1/x", "text", "--token-file", "/no/token", "--wait", "1h"}, []string{"/no/token"}},
		{[]string{"pub", "tls://127.0.0.1:1/x", "text", "--tls-cert", "/no/such.pem", "--wait", "1h"}, []string{"--tls-cert and --tls-key"}},
		{[]string{"pub", "tls://127.0.0.1:1/x", "text", "--tls-ca", "/dev/null", "--wait", "1h"}, []string{"--tls-ca /dev/null"}},
		{[]string{"reply", anyPort + "/x", "--echo", "--reply-to", "nearby"}, []string{"--reply-to", "nearby", "10.0.0.0/8"}},
		{[]string{"reply", anyPort + "/x", "--exec", "/no/such/program"}, []string{"--exec", "/no/such/program"}},
	} {
		stdout, stderr, code := runCommand(t, "", test.args...)
		require.Equal(t, 1, code, "%q", test.args)
		require.Empty(t, stdout, "%q", test.args)
		requireOneLine(t, stderr, test.parts...)
	}
	for _, args := range [][]string{{"--version"}, {"help"}, {"help", "check", "lag"}, {"completion", "bash"}, {"completion"}, {"check"}, {"outbox"}} {
		stdout, stderr, code := runCommand(t, "", args...)
		require.Zero(t, code, "%q", args)
		require.Empty(t, stderr, "%q", args)
		require.NotEmpty(t, stdout, "%q", args)
	}
}

// A check that was called wrong knows nothing of the peer: it is UNKNOWN, also where the name of the check is wrong.
func TestUsage_OfChecks(t *testing.T) {
	t.Parallel()
	requireCheck(t, 3, []string{"CHECK UNKNOWN", `"conect"`, "--help"}, "conect")
	requireCheck(t, 3, []string{"usage: buffstreams check connect ADDRESS"}, "connect")
	requireCheck(t, 3, []string{"must not be negative"}, "connect", "127.0.0.1:1", "-w", "-1s")
	requireCheck(t, 3, []string{"bad address"}, "certificate", "nowhere")
	requireCheck(t, 3, []string{"bad address"}, "publish", "")
	requireCheck(t, 3, []string{"/no/such.pem"}, "connect", "tls://127.0.0.1:1", "--tls-ca", "/no/such.pem")
	requireCheck(t, 3, []string{"/no/token"}, "lag", "127.0.0.1:1", "--token-file", "/no/token")
}

func TestCheck_Ready(t *testing.T) {
	t.Parallel()
	requireCheck(t, 0, []string{"READY OK - ready"}, "ready", watched(t, monitor.Config{}))
	requireCheck(t, 2, []string{"READY CRITICAL - outbox orders: no space left on device"}, "ready",
		watched(t, monitor.Config{Outboxes: map[string]monitor.Outbox{"orders": fullDisk{}}}))
	requireCheck(t, 2, []string{"refused"}, "ready", freeAddress(t))
}

// A secret of a URL is not taken from the command line, where other users of the machine see it, but from elsewhere.
func TestBridge_SecretOnTheCommandLine(t *testing.T) {
	t.Parallel()
	for _, url := range []string{"nats://user:hush@127.0.0.1:1", "nats://hush@127.0.0.1:1", "amqp://user:hush@127.0.0.1:1/x?group=g"} {
		for _, from := range [][]string{{"--from", url}, {"--from=" + url}} {
			_, stderr, code := runCommand(t, "", append(from, "bridge", "--to", "tcp://127.0.0.1:1", "--topic", "x")...)
			require.Equal(t, 1, code)
			requireOneLine(t, stderr, "--from has a secret", "password_file")
			require.NotContains(t, stderr, "hush")
		}
	}
	for _, url := range []string{"nats://user@127.0.0.1:1?password_env=NONE", "nats://127.0.0.1:1"} {
		_, stderr, code := runCommand(t, "", "bridge", "--from", url, "--to", "tcp://127.0.0.1:1", "--topic", "x", "--start-timeout", "100ms")
		require.Equal(t, 1, code)
		require.NotContains(t, stderr, "has a secret")
	}
	env := []string{"BUFFSTREAMS_FROM=nats://user:hush@127.0.0.1:1"}
	_, stderr, code := runWith(t, env, "bridge", "--to", "tcp://127.0.0.1:1", "--topic", "x", "--start-timeout", "100ms")
	require.Equal(t, 1, code)
	require.NotContains(t, stderr, "has a secret")
	require.NotContains(t, stderr, "hush")
}

// fullDisk is an outbox that a full disk has stopped.
type fullDisk struct{}

func (fullDisk) Stats() store.OutboxStats {
	return store.OutboxStats{Name: "/var/spool/orders", Err: "no space left on device"}
}
