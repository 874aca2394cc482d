package buffstreams

import (
	"context"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/acked/acktest"
	"github.com/buffstreams/watermill-buffstreams/internal/acked/sender"
	"github.com/buffstreams/watermill-buffstreams/internal/netio"
	"github.com/buffstreams/watermill-buffstreams/internal/session"
	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
	"github.com/buffstreams/watermill-buffstreams/pool"
)

func TestDialAllow_DeniedLiteralAddressTakesNoMessages(t *testing.T) {
	m := newTestManager(t, ManagerConfig{DialAllow: &pool.DialAllow{Prefixes: prefixes("10.0.0.0/8")}})
	for _, target := range []netio.Target{{Network: "tcp", Address: "127.0.0.1:1"}, {Network: "unix", Address: "/run/x.sock"}} {
		_, err := m.use(target)
		require.ErrorIs(t, err, netio.ErrDialDenied)
	}
	require.ErrorIs(t, m.plain.Dial(pool.WriterConfig{Address: "127.0.0.1:1"}), netio.ErrDialDenied)
}

func TestDialAllow_ChecksTheConnectionOfACustomDial(t *testing.T) {
	peer := testkit.NewPeerServer(t, "127.0.0.1:0")
	dial := func(ctx context.Context, network, _ string) (net.Conn, error) { // goes elsewhere than it was asked to
		return (&net.Dialer{}).DialContext(ctx, network, peer.Address())
	}
	m := newTestManager(t, ManagerConfig{Dial: dial, DialAllow: &pool.DialAllow{Prefixes: prefixes("10.0.0.0/8")}})
	_, err := publishOne(t, senderTo(t, m, netio.Target{Network: "tcp", Address: "10.0.0.1:1"}), "secret")
	require.ErrorIs(t, err, netio.ErrDialDenied)
	got, _ := io.ReadAll(peer.Accept(t))
	require.Empty(t, got, "a byte was sent to an address that is denied")
	for _, cfg := range []pool.WriterConfig{{Address: "10.0.0.1:1"}, {Address: "10.0.0.1:1", Dial: dial}} {
		require.ErrorIs(t, m.plain.Dial(cfg), netio.ErrDialDenied)
	}

	network := testkit.NewNetwork() // whose connections have no address
	m = newTestManager(t, ManagerConfig{Dial: network.Dial, DialAllow: &pool.DialAllow{Prefixes: prefixes("0.0.0.0/0")}})
	require.ErrorIs(t, m.plain.Dial(pool.WriterConfig{Address: "10.0.0.1:1"}), netio.ErrDialDenied)
}

// A name that first leads to an allowed address and later to another is the attack that a check of names would miss.
func TestDialAllow_ReboundNameIsDeniedWhenConnected(t *testing.T) {
	var rebound atomic.Bool
	testkit.ResolveBy(t, func() []string {
		if rebound.Load() {
			return []string{"127.0.0.2"}
		}
		return []string{"127.0.0.1"}
	})

	inside, allowed, port := twins(t) // the attacker is after the first
	m := newTestManager(t, ManagerConfig{DialAllow: &pool.DialAllow{Prefixes: prefixes("127.0.0.1/32")}})
	address := "orders.example:" + port
	require.NoError(t, m.plain.Dial(pool.WriterConfig{Address: address}))
	allowed.Accept(t)
	require.NoError(t, m.plain.CloseWriter(address))

	rebound.Store(true)
	require.ErrorIs(t, m.plain.Dial(pool.WriterConfig{Address: address}), netio.ErrDialDenied)
	l := senderTo(t, m, netio.Target{Network: "tcp", Address: address})
	enqueued, err := publishOne(t, l, "x")
	var denied *netio.DialDeniedError
	require.ErrorAs(t, err, &denied)
	require.Equal(t, inside.Address(), denied.Address)
	require.Equal(t, 1, enqueued, "what was taken stays")
	enqueued, err = publishOne(t, l, "y")
	require.ErrorIs(t, err, netio.ErrDialDenied)
	require.Zero(t, enqueued, "and trying again piles up nothing")
	require.Equal(t, 1, l.Pending())
	require.NoError(t, inside.Listener.(*net.TCPListener).SetDeadline(time.Now()))
	_, err = inside.Listener.Accept()
	var timeout net.Error
	require.True(t, errors.As(err, &timeout) && timeout.Timeout(), "it was connected to: %v", err)
}

// publishOne publishes one message over a link and waits for it to be received.
func publishOne(t *testing.T, l *sender.Sender, payload string) (enqueued int, err error) {
	t.Helper()
	n, _, err := l.Publish(context.Background(), "a", acktest.BatchOf(t, payload), session.Received, 10*time.Second)
	return n, err
}

// twins listen at the same port of two addresses.
func twins(t *testing.T) (second, first testkit.PeerServer, port string) {
	for {
		second = testkit.NewPeerServer(t, "127.0.0.2:0")
		_, port, err := net.SplitHostPort(second.Address())
		require.NoError(t, err)
		if ln, err := net.Listen("tcp", "127.0.0.1:"+port); err == nil {
			t.Cleanup(func() { _ = ln.Close() })
			return second, testkit.PeerServer{Listener: ln}, port
		}
	}
}
