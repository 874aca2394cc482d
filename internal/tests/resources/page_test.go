//go:build linux

package resources

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
	"github.com/buffstreams/watermill-buffstreams/monitor"
)

// TestPage_ManyPeers: with 10,000 connections at one listener, what the page asks for stays small, and takes no goroutine for them.
func TestPage_ManyPeers(t *testing.T) {
	count := int(testkit.EnvNumber(t, "CONNECTIONS", 10_000))
	if testing.Short() || testkit.RaceEnabled {
		count = min(count, 500)
	}
	if err := limitDescriptors(uint64(count + 500)); err != nil {
		t.Skip(err)
	}
	testkit.CheckLeaks(t)
	sub, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{
		Wire: buffstreams.WireBuffStreams, CloseTimeout: time.Second, ManagerConfig: buffstreams.ManagerConfig{
			CloseTimeout: time.Second, Acked: buffstreams.AckedConfig{MaxConnections: 2 * count, MaxConnectionsPerHost: buffstreams.Unlimited},
		},
	}, nil)
	require.NoError(t, err)
	defer func() { require.NoError(t, sub.Close()) }()
	_, err = sub.Subscribe(t.Context(), "127.0.0.1:0")
	require.NoError(t, err)
	at, err := sub.Addr("127.0.0.1:0")
	require.NoError(t, err)
	page, err := monitor.New(monitor.Config{Subscribers: map[string]*buffstreams.Subscriber{"numbers": sub}})
	require.NoError(t, err)
	defer func() { require.NoError(t, page.Close()) }()
	cmd := child(t, "idle connections", at.String(), strconv.Itoa(count))
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	cmd.Stderr = os.Stderr
	require.NoError(t, cmd.Start())
	defer func() {
		require.NoError(t, in.Close())
		require.NoError(t, cmd.Wait())
	}()
	var stats monitor.Stats
	var size, running int
	var took time.Duration
	require.Eventually(t, func() bool { // Stats is kept for a second
		answer, r := httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/stats?limit=100", http.NoBody)
		r.RemoteAddr, r.Host = "127.0.0.1:1000", "127.0.0.1:8080"
		running = runtime.NumGoroutine()
		began := time.Now()
		page.ServeHTTP(answer, r)
		took, size = time.Since(began), answer.Body.Len()
		stats = monitor.Stats{}
		return json.Unmarshal(answer.Body.Bytes(), &stats) == nil && len(stats.Listeners) == 1 && stats.LeftOff["peers"] == count-100
	}, patience, 500*time.Millisecond)
	t.Logf("/stats for the page with %d peers: %d bytes in %v", count, size, took.Round(time.Millisecond))
	require.Less(t, size, 50_000)
	require.LessOrEqual(t, runtime.NumGoroutine(), running+10)
}

// idleConnections connects that often, and waits for the end of its input.
func idleConnections(address, text string) error {
	count, err := strconv.Atoi(text)
	if err != nil {
		return err
	}
	if err := limitDescriptors(uint64(count + 500)); err != nil {
		return err
	}
	conns := make([]net.Conn, count) // they end with the process
	for i := range conns {
		if conns[i], err = net.Dial("tcp", address); err != nil {
			return fmt.Errorf("idle connections: %w", err)
		}
	}
	_, err = io.Copy(io.Discard, os.Stdin)
	runtime.KeepAlive(conns)
	return err
}
