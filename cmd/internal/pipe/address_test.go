package pipe

import (
	"context"
	"net"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestParseTopic(t *testing.T) {
	for topic, want := range map[string]Address{
		"127.0.0.1:5031":          {Target{Network: "tcp", Address: "127.0.0.1:5031"}, ""},
		":5031/orders":            {Target{Network: "tcp", Address: ":5031"}, "orders"},
		"tcp://h:1/a/b":           {Target{Network: "tcp", Address: "h:1"}, "a/b"},
		"tls://[::1]:1/x":         {Target{Network: "tcp", Address: "[::1]:1", TLS: true}, "x"},
		"unix:///run/s.sock#name": {Target{Network: "unix", Address: "/run/s.sock"}, "name"},
		"unix:///run/s.sock":      {Target{Network: "unix", Address: "/run/s.sock"}, ""},
	} {
		got, err := ParseTopic(topic)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	for _, topic := range []string{"", "orders", "h", "h:", "h:http", "h:65536", "h:-1", "::1:80", "unix://s", "http://h:1", "tcp://h"} {
		_, err := ParseTopic(topic)
		require.ErrorContains(t, err, "bad address", topic)
	}
}

func TestAwaitListener(t *testing.T) {
	nowhere := Target{Network: "unix", Address: filepath.Join(t.TempDir(), "s")}
	_, err := AwaitListener(t.Context(), nowhere, 0)
	require.ErrorContains(t, err, "nothing listens at "+nowhere.Address)

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = AwaitListener(ctx, nowhere, 0)
	require.ErrorIs(t, err, ErrInterrupted)

	ln, err := net.Listen("unix", nowhere.Address)
	require.NoError(t, err)
	defer func() { _ = ln.Close() }()
	conn, err := AwaitListener(t.Context(), nowhere, 0)
	require.NoError(t, err)
	require.NoError(t, conn.Close())
}

func TestConfig_IsValid(t *testing.T) {
	for _, limit := range []int{1, 4096, 1 << 20, 16 << 20, 1 << 29, largestMessage} {
		require.NoError(t, AckedConfig(limit).Validate(), limit)
	}
}
