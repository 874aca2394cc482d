package receiver

import (
	"cmp"
	"context"
	"net"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/dispatch"
	"github.com/buffstreams/watermill-buffstreams/internal/flow"
	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
	"github.com/buffstreams/watermill-buffstreams/store"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// testMemory is the budget of a test's receiver, unless it has one.
const testMemory = 256 << 20

// complete gives the fields that a test leaves zero the values that a Manager would.
func complete(cfg Config) Config {
	cfg.Address = cmp.Or(cfg.Address, "127.0.0.1:0")
	cfg.MaxMessageSize = cmp.Or(cfg.MaxMessageSize, 1<<20)
	cfg.WindowMessages = cmp.Or(cfg.WindowMessages, 16384)
	cfg.WindowBytes = cmp.Or(cfg.WindowBytes, 16<<20)
	cfg.MaxConnections = cmp.Or(cfg.MaxConnections, 16384)
	cfg.MaxConnectionsPerHost = cmp.Or(cfg.MaxConnectionsPerHost, max(1, cfg.MaxConnections/4))
	cfg.MaxTopics = cmp.Or(cfg.MaxTopics, 65536)
	cfg.MaxPublishers = cmp.Or(cfg.MaxPublishers, 65536)
	cfg.MaxStreams = cmp.Or(cfg.MaxStreams, 65536)
	cfg.HandshakeTimeout = cmp.Or(cfg.HandshakeTimeout, 5*time.Second)
	cfg.WriteTimeout = cmp.Or(cfg.WriteTimeout, 10*time.Second)
	cfg.DeadAfter = cmp.Or(cfg.DeadAfter, 30*time.Second)
	cfg.ForgetAfter = cmp.Or(cfg.ForgetAfter, 5*time.Minute)
	if cfg.Budget == nil {
		cfg.Budget = flow.NewBudget(testMemory)
	}
	if cfg.Logger == nil {
		cfg.Logger = watermill.NopLogger{}
	}
	return cfg
}

// start returns a Receiver that accepts from ln.
func start(t testing.TB, cfg Config, ln net.Listener) *Receiver {
	t.Helper()
	r, err := New(complete(cfg), ln)
	require.NoError(t, err)
	t.Cleanup(func() {
		select {
		case <-r.Done():
		default:
			_ = r.Close(context.Background())
		}
	})
	return r
}

// listen returns a Receiver at a port of its own.
func listen(t testing.TB, cfg Config) *Receiver {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	return start(t, cfg, ln)
}

// knows tells whether a stream is in memory.
func (r *Receiver) knows(id store.StreamID) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.knowsLocked(id)
}

// join makes a member of the only group of a topic.
func join(r *Receiver, topic string) *dispatch.Member { return r.Topic(topic).Join("g", func() {}) }
