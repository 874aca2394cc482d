package buffstreams

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/acked/sender"
	"github.com/buffstreams/watermill-buffstreams/internal/dispatch"
	"github.com/buffstreams/watermill-buffstreams/internal/netio"
)

func newTestManager(t testing.TB, cfg ManagerConfig) *Manager {
	t.Helper()
	if cfg.CloseTimeout == 0 {
		cfg.CloseTimeout = 10 * time.Millisecond // many of these tests leave messages behind
	}
	m, err := NewManager(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { _ = m.Close() })
	return m
}

// anyPort is where these tests listen.
var anyPort = netio.Target{Network: "tcp", Address: "127.0.0.1:0"}

func tcp(address string) netio.Target { return netio.Target{Network: "tcp", Address: address} }

func senderTo(t testing.TB, m *Manager, target netio.Target) *sender.Sender {
	t.Helper()
	a, err := m.use(target)
	require.NoError(t, err)
	return a.sender
}

// newPair returns a Manager with a listener, and a sender to that.
func newPair(t testing.TB, cfg AckedConfig) (*Manager, *sender.Sender, listener) {
	t.Helper()
	m := newTestManager(t, ManagerConfig{Acked: cfg})
	l, err := m.listen(anyPort)
	require.NoError(t, err)
	return m, senderTo(t, m, tcp(l.Addr().String())), l
}

// consumer is the only member of a topic's group.
type consumer struct {
	*dispatch.Member
	wake chan struct{}
}

func newConsumer(l listener, topic string) *consumer {
	c := &consumer{wake: make(chan struct{}, 1)}
	c.Member = l.Topic(topic).Join("g", func() {
		select {
		case c.wake <- struct{}{}:
		default:
		}
	})
	return c
}

// next waits for the group's next message.
func (c *consumer) next() dispatch.Delivery {
	for {
		if d, _, ok := c.Take(); ok {
			return d
		}
		<-c.wake
	}
}

func prefixes(all ...string) (out []netip.Prefix) {
	for _, p := range all {
		out = append(out, netip.MustParsePrefix(p))
	}
	return out
}
