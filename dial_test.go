package buffstreams

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/acked/acktest"
	"github.com/buffstreams/watermill-buffstreams/internal/netio"
	"github.com/buffstreams/watermill-buffstreams/internal/session"
	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
)

// A name has several addresses, and what listens at the first ones is no peer: one says nothing, one hangs up. An attempt
// begins with another address than the last, so that the third one is found.
func TestManager_DialsElsewhereAfterAConnectionThatGotNowhere(t *testing.T) {
	testkit.ServeNames(t, "127.0.0.2", "127.0.0.3", "127.0.0.4")
	listeners, port := testkit.ListenAt(t, "127.0.0.2", "127.0.0.3", "127.0.0.4")
	go func() { // ends with the listener
		for {
			conn, err := listeners[0].Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { _ = conn.Close() }) // it says nothing until then
		}
	}()
	go func() { // ends with the listener
		for {
			conn, err := listeners[1].Accept()
			if err != nil {
				return
			}
			_ = conn.Close()
		}
	}()
	there := newTestManager(t, ManagerConfig{Listen: func(string, string) (net.Listener, error) { return listeners[2], nil }})
	ln, err := there.listen(netio.Target{Network: "tcp", Address: "127.0.0.4:" + port})
	require.NoError(t, err)
	newConsumer(ln, "a")

	m := newTestManager(t, ManagerConfig{Acked: AckedConfig{HandshakeTimeout: 200 * time.Millisecond}})
	s := senderTo(t, m, netio.Target{Network: "tcp", Address: "orders.example:" + port})
	_, _, err = s.Publish(context.Background(), "a", acktest.BatchOf(t, "1"), session.Received, 10*time.Second)
	require.NoError(t, err)
}
