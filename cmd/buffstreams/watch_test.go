package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/monitor"
)

// watched is a process with a monitor: this one. Its group has settled none of five messages.
func watched(t *testing.T, cfg monitor.Config) (address string) {
	t.Helper()
	return watchedWith(t, cfg, nil)
}

func watchedWith(t *testing.T, cfg monitor.Config, tlsConfig *tls.Config) (address string) {
	t.Helper()
	manager, err := buffstreams.NewManager(buffstreams.ManagerConfig{CloseTimeout: time.Millisecond})
	require.NoError(t, err)
	t.Cleanup(func() { _ = manager.Close() }) // messages are left on purpose
	sub, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{Manager: manager, ConsumerGroup: "slow", CloseTimeout: time.Millisecond}, nil)
	require.NoError(t, err)
	t.Cleanup(func() { _ = sub.Close() })
	_, err = sub.Subscribe(t.Context(), anyPort+"/orders")
	require.NoError(t, err)
	at, err := sub.Addr(anyPort + "/orders")
	require.NoError(t, err)
	publisher, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{Manager: manager}, nil)
	require.NoError(t, err)
	for range 5 {
		require.NoError(t, publisher.Publish(at.String()+"/orders", message.NewMessage("", []byte("x"))))
	}
	cfg.Title, cfg.Managers = "Test\x1b[2J", map[string]*buffstreams.Manager{"main": manager}
	m, err := monitor.New(cfg)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	serving, ended := make(chan net.Addr, 1), make(chan error, 1)
	go func() { ended <- m.ListenAndServe(ctx, anyPort, tlsConfig, func(a net.Addr) { serving <- a }) }() // ends with ctx
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-ended)
		require.NoError(t, m.Close())
	})
	return (<-serving).String()
}

func TestTop_PrintsTables(t *testing.T) {
	t.Parallel()
	at := watched(t, monitor.Config{StuckAfter: time.Millisecond})
	stdout, stderr, code := runCommand(t, "", "top", at)
	require.Zero(t, code, stderr)
	require.NotContains(t, stdout, "\x1b", "nothing that a terminal obeys")
	tables := strings.Split(stdout, "\n\n")
	require.Len(t, tables, 3)
	require.Contains(t, tables[0], "Test?[2J")
	require.Contains(t, tables[0], "CRITICAL  group main at")
	require.Contains(t, tables[1], "ADDRESS")
	rows := strings.Split(strings.TrimSpace(tables[2]), "\n")
	require.Equal(t, []string{"TOPIC", "GROUP", "AT", "STATE", "LAG", "IN-FLIGHT"}, strings.Fields(rows[0])[:6])
	cells := strings.Fields(rows[1])
	require.Len(t, cells, len(strings.Fields(rows[0])))
	require.Equal(t, []string{"orders", "slow"}, cells[:2])
	require.Equal(t, []string{"open", "5"}, cells[3:5])

	stdout, _, code = runCommand(t, "", "top", "http://"+at+"/", "--count", "2", "--interval", "100ms", "--json")
	require.Zero(t, code)
	for line := range strings.Lines(stdout) {
		var s monitor.Stats
		require.NoError(t, json.Unmarshal([]byte(line), &s))
		require.Equal(t, 5, s.Listeners[0].Topics[0].Groups[0].Lag)
	}
	require.Equal(t, 2, strings.Count(stdout, "\n"))
}

func TestTop_ShowsItsToken(t *testing.T) {
	t.Parallel()
	at := watched(t, monitor.Config{Token: "hush"})
	_, stderr, code := runCommand(t, "", "top", at)
	require.Equal(t, 1, code)
	requireOneLine(t, stderr, "401", "token")
	token := filepath.Join(t.TempDir(), "token")
	require.NoError(t, os.WriteFile(token, []byte("hush"), 0o600))
	_, stderr, code = runCommand(t, "", "top", at, "--token-file", token)
	require.Zero(t, code, stderr)
	requireCheck(t, 0, nil, "lag", at, "--token-file", token)
	_, stderr, code = runCommand(t, "", "top", "http://192.0.2.1:1", "--token-file", token)
	require.Equal(t, 1, code)
	requireOneLine(t, stderr, "plaintext")
	for _, address := range []string{"ftp://x", "http://user:pw@127.0.0.1:1", "http://", freeAddress(t)} {
		_, stderr, code = runCommand(t, "", "top", address)
		require.Equal(t, 1, code)
		requireOneLine(t, stderr)
		require.NotContains(t, stderr, "pw@")
	}
	_, elsewhere := startSub(t, nil, anyPort)
	_, stderr, code = runCommand(t, "", "top", elsewhere)
	require.Equal(t, 1, code)
	requireOneLine(t, stderr, "does not speak HTTP", "may be a listener of messages")
	requireCheck(t, 2, []string{"may be a listener of messages", "use the address of the HTTP server that has the monitor"}, "ready", elsewhere)
}

// With client certificates no token is needed, and without one there is no connection.
func TestTop_ShowsItsCertificate(t *testing.T) {
	t.Parallel()
	cert, key := certificate(t, t.TempDir(), time.Hour)
	cfg, err := buffstreams.TLSFiles{Certificate: cert, Key: key, CA: cert}.Server()
	require.NoError(t, err)
	at := "https://" + watchedWith(t, monitor.Config{Token: "not shown"}, cfg)
	stdout, stderr, code := runCommand(t, "", "top", at, "--tls-ca", cert, "--tls-cert", cert, "--tls-key", key)
	require.Zero(t, code, stderr)
	require.Contains(t, stdout, "orders")
	requireCheck(t, 0, nil, "lag", at, "--tls-ca", cert, "--tls-cert", cert, "--tls-key", key)
	for _, args := range [][]string{{"--tls-ca", cert}, {"--tls-cert", cert, "--tls-key", key}, nil} {
		_, stderr, code = runCommand(t, "", append([]string{"top", at}, args...)...)
		require.Equal(t, 1, code)
		requireOneLine(t, stderr, "ertificate")
	}
}

func TestCheck_Lag(t *testing.T) {
	t.Parallel()
	at := watched(t, monitor.Config{})
	requireCheck(t, 0, []string{`at most 5 messages behind: topic "orders" group "slow"`, "'lag'=5;1000;10000;0"}, "lag", at)
	requireCheck(t, 1, nil, "lag", at, "--lag-warning", "5")
	requireCheck(t, 2, nil, "lag", at, "--lag-critical", "5")
	requireCheck(t, 1, nil, "lag", at, "-w", "1ns", "-c", "0s")
	requireCheck(t, 0, nil, "lag", at, "--topic", "orders", "--group", "slow")
	requireCheck(t, 2, []string{"no group"}, "lag", at, "--topic", "other")
	requireCheck(t, 2, []string{"refused"}, "lag", freeAddress(t))
	requireCheck(t, 3, nil, "lag", at, "--lag-warning", "-1")
}

func TestCheck_Stuck(t *testing.T) {
	t.Parallel()
	requireCheck(t, 0, []string{"nothing is stuck", "'critical'=0;0;1;0 'warnings'=0;1;0;0"}, "stuck", watched(t, monitor.Config{StuckAfter: time.Hour}))
	at := watched(t, monitor.Config{StuckAfter: time.Millisecond})
	requireCheck(t, 2, []string{"orders group slow: its oldest message is not settled; 5 messages wait", "'critical'=2;0;1;0"}, "stuck", at)
	requireCheck(t, 2, []string{"refused"}, "stuck", freeAddress(t))
	requireCheck(t, 3, nil, "stuck")
	requireCheck(t, 3, nil, "stuck", at, "--timeout", "0s")
}
