package sender

import (
	"cmp"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/cenkalti/backoff/v5"

	"github.com/buffstreams/watermill-buffstreams/internal/flow"
	"github.com/buffstreams/watermill-buffstreams/internal/netio"
	"github.com/buffstreams/watermill-buffstreams/internal/session"
	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// moving tells whether the stream is on its way to another Sender.
func (st *Stream) moving() bool {
	defer st.lock().mu.Unlock()
	return st.target != nil
}

// start returns a Sender. The fields that a test leaves zero have the values that a Manager would give them.
func start(t testing.TB, cfg Config) *Sender {
	t.Helper()
	cfg.Target = netio.Target{Network: "tcp", Address: "127.0.0.1:1"}
	cfg.MaxMessageSize = cmp.Or(cfg.MaxMessageSize, 1<<20)
	cfg.WindowMessages = cmp.Or(cfg.WindowMessages, 16384)
	cfg.WindowBytes = cmp.Or(cfg.WindowBytes, 16<<20)
	cfg.HandshakeTimeout = cmp.Or(cfg.HandshakeTimeout, 5*time.Second)
	cfg.WriteTimeout, cfg.ForgetAfter = 10*time.Second, 5*time.Minute
	cfg.PingAfter, cfg.DeadAfter = 10*time.Second, 30*time.Second
	if cfg.Backoff == nil {
		cfg.Backoff = func() backoff.BackOff { return netio.NewFullJitter(100*time.Millisecond, 10*time.Second, 2) }
	}
	cfg.Identity = session.Identity{Publisher: [16]byte{1}, Epoch: 1}
	var streams uint64
	cfg.NextStream = func() uint64 { streams++; return streams }
	if cfg.Budget == nil {
		cfg.Budget = flow.NewBudget(256 << 20)
	}
	cfg.Ticker = NewTicker(cfg.PingAfter)
	if cfg.Logger == nil {
		cfg.Logger = watermill.NopLogger{}
	}
	s := New(cfg)
	s.waiters = &sync.Pool{New: newWaiter} // what it has belongs to the bubble of the test
	t.Cleanup(func() { s.Close() })
	return s
}
