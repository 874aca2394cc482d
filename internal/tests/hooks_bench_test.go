package tests

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/hooks"
	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
)

// benchHooks are the hooks of the benchmarks: one that watches everything, with HOOKS=1, otherwise none.
func benchHooks() []hooks.Hook {
	if os.Getenv("HOOKS") == "" {
		return nil
	}
	return []hooks.Hook{new(counter)}
}

// counter counts what it is told.
type counter struct{ events, messages, bytes atomic.Uint64 }

func (c *counter) count(messages, bytes int) {
	c.events.Add(1)
	c.messages.Add(uint64(messages))
	c.bytes.Add(uint64(bytes))
}

func (c *counter) OnDialed(hooks.Dialed)             { c.count(0, 0) }
func (c *counter) OnConnected(hooks.Connected)       { c.count(0, 0) }
func (c *counter) OnLost(hooks.Lost)                 { c.count(0, 0) }
func (c *counter) OnAccepted(hooks.Accepted)         { c.count(0, 0) }
func (c *counter) OnRefused(hooks.Refused)           { c.count(0, 0) }
func (c *counter) OnMoved(hooks.Moved)               { c.count(0, 0) }
func (c *counter) OnResolved(hooks.Resolved)         { c.count(0, 0) }
func (c *counter) OnForgotten(hooks.Forgotten)       { c.count(0, 0) }
func (c *counter) OnSent(e hooks.Sent)               { c.count(e.Messages, e.Bytes) }
func (c *counter) OnReceived(e hooks.Received)       { c.count(e.Messages, e.Bytes) }
func (c *counter) OnDuplicate(e hooks.Duplicate)     { c.count(e.Messages, 0) }
func (c *counter) OnSettled(e hooks.Settled)         { c.count(e.Messages, e.Bytes) }
func (c *counter) OnHandled(e hooks.Handled)         { c.count(e.Messages, e.Bytes) }
func (c *counter) OnWindowFull(hooks.WindowFull)     { c.count(0, 0) }
func (c *counter) OnRedelivered(hooks.Redelivered)   { c.count(1, 0) }
func (c *counter) OnDeadLettered(hooks.DeadLettered) { c.count(1, 0) }
func (c *counter) OnRejected(hooks.Rejected)         { c.count(1, 0) }

// cost is what a message has taken.
type cost struct{ cpu, allocations float64 }

// TestHooks_Cost compares runs with and without hooks that alternate in this process, by CPU time and allocations of a message.
// HOOKS_PAIRS says how many pairs: docs/operating.md has what 16 gave.
func TestHooks_Cost(t *testing.T) {
	pairs := int(testkit.EnvNumber(t, "HOOKS_PAIRS", 0))
	if pairs == 0 {
		t.Skip("HOOKS_PAIRS=16 takes minutes")
	}
	for _, batch := range []int{1, 100} {
		t.Run("batch="+strconv.Itoa(batch), func(t *testing.T) {
			var ratios, noise, more []float64
			all := new(counter)
			for range pairs {
				without, with := costOf(t, batch, nil), costOf(t, batch, []hooks.Hook{all})
				with2, without2 := costOf(t, batch, []hooks.Hook{all}), costOf(t, batch, nil)
				ratios = append(ratios, (with.cpu+with2.cpu)/(without.cpu+without2.cpu))
				noise = append(noise, without2.cpu/without.cpu)
				more = append(more, (with.allocations+with2.allocations-without.allocations-without2.allocations)/2)
			}
			slices.Sort(more)
			t.Logf("with all hooks: CPU time %s; without twice: %s; %+.3f allocations and %.3f calls a message",
				spread(ratios), spread(noise), more[pairs/2], float64(all.events.Load())/float64(2*pairs*costCount))
			require.Less(t, ratios[pairs/2], 1.08) // spread has sorted them
		})
	}
}

// spread sorts ratios, and says their median and quartiles.
func spread(ratios []float64) string {
	slices.Sort(ratios)
	percent := func(at int) float64 { return 100 * (ratios[at] - 1) }
	n := len(ratios)
	return fmt.Sprintf("%+.1f %% (%+.1f to %+.1f)", percent(n/2), percent(n/4), percent(3*n/4))
}

// costCount is how many messages a run has.
const costCount = 100_000

// costOf publishes and handles messages, batch at a time.
func costOf(t *testing.T, batch int, all []hooks.Hook) cost {
	t.Helper()
	const count = costCount
	ps, err := buffstreams.NewPubSub(buffstreams.PubSubConfig{
		Manager:    buffstreams.ManagerConfig{Hooks: all},
		Publisher:  buffstreams.PublisherConfig{Confirm: buffstreams.ConfirmEnqueued},
		Subscriber: buffstreams.SubscriberConfig{MaxInFlight: 256},
	}, nil)
	require.NoError(t, err)
	defer func() { require.NoError(t, ps.Close()) }()
	messages, err := ps.Subscribe(context.Background(), "bench")
	require.NoError(t, err)
	payload := make([]byte, 110)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	began := cpuTime()
	published := later(func() error {
		for sent := 0; sent < count; {
			msgs := make([]*message.Message, 0, batch)
			for ; len(msgs) < batch && sent < count; sent++ {
				msgs = append(msgs, message.NewMessage(watermill.NewUUID(), payload))
			}
			if err := ps.Publish("bench", msgs...); err != nil {
				return err
			}
		}
		return nil
	})
	for range count {
		(<-messages).Ack()
	}
	require.NoError(t, <-published)
	took := cpuTime() - began
	runtime.ReadMemStats(&after)
	return cost{float64(took) / count, float64(after.Mallocs-before.Mallocs) / count}
}
