package buffstreams

import (
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/hooks"
	"github.com/buffstreams/watermill-buffstreams/internal/acked/receiver"
	"github.com/buffstreams/watermill-buffstreams/internal/acked/sender"
	"github.com/buffstreams/watermill-buffstreams/internal/dispatch"
	"github.com/buffstreams/watermill-buffstreams/internal/flow"
	"github.com/buffstreams/watermill-buffstreams/internal/hook"
	"github.com/buffstreams/watermill-buffstreams/internal/session"
	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
)

func at(second int64) time.Time { return time.Unix(second, 0) }

// What Stats says of an address is what its sender says, added up over the streams.
func TestStats_OfAnAddress(t *testing.T) {
	require.Equal(t, AddressStats{
		Address: "a", State: "draining", Since: at(1), LastError: "e", LastErrorAt: at(2), Connects: 3, Failures: 4,
		Pending: 5 + 50, Unreceived: 6 + 60, OldestUnsettled: at(7), Sent: 8, SentBytes: 9, Settled: 10, Refused: 11,
		Streams: []StreamStats{
			{Topic: "x", Outbox: true, Pending: 5, Unreceived: 6, Bytes: 12, OldestUnsettled: at(7), Waiting: 13, Groups: "00000000000000ff"},
			{Topic: "y", Pending: 50, Unreceived: 60, OldestUnsettled: at(70)},
		},
	}, addressStats("a", sender.Stats{
		State: sender.Draining, Since: at(1), LastError: "e", ErrorAt: at(2), Connects: 3, Failures: 4,
		Streams: []session.StreamStats{
			{Topic: "x", Fetched: true, Pending: 5, Unreceived: 6, Bytes: 12, Oldest: at(7), Waiting: 13, Groups: 255},
			{Topic: "y", Pending: 50, Unreceived: 60, Oldest: at(70)},
		},
		Totals: session.Totals{Sent: 8, SentBytes: 9, Settled: 10, Refused: 11},
	}))
}

// statsListener is a listener that says something of itself.
type statsListener struct {
	listener
	stats receiver.Stats
}

func (*statsListener) Addr() net.Addr          { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 7} }
func (l *statsListener) Stats() receiver.Stats { return l.stats }

// What Stats says of a listener is what that says, by topic and group.
func TestStats_OfAListener(t *testing.T) {
	l := &statsListener{stats: receiver.Stats{
		Peers: []receiver.PeerStats{{Address: "p", Principal: "q", Agent: "r", Since: at(1), Streams: 2}}, Publishers: 3,
		Received: 4, Duplicates: 5, Rejected: 6,
		Topics: []receiver.TopicStats{{Streams: 7, Stats: dispatch.Stats{
			Name: "t", Ephemeral: true, Received: 8, Held: flow.Amount{Messages: 9, Bytes: 10}, Window: flow.Amount{Messages: 11, Bytes: 12},
			Missing: []string{"m"}, Shortage: "s", Groups: []dispatch.GroupStats{{
				Name: "g", Members: 13, Settled: 14, Unsettled: 40, Backlog: 25, Oldest: at(16), Waiting: 17,
				Keys: []dispatch.KeyStats{{Key: "k\n", Waiting: 18, Oldest: at(19)}},
			}},
		}}},
	}}
	want := ListenerStats{
		Address: "127.0.0.1:0", Bound: "127.0.0.1:7", State: "open",
		Peers: []PeerStats{{Address: "p", Principal: "q", Agent: "r", Since: at(1), Streams: 2}}, Publishers: 3,
		Received: 4, Duplicates: 5, Rejected: 6,
		Topics: []TopicStats{{
			Topic: "t", Ephemeral: true, Streams: 7, Received: 8, Held: 9, HeldBytes: 10, Window: 11, WindowBytes: 12,
			Missing: []string{"m"}, Shortage: "s", Groups: []GroupStats{{
				Group: "g", Members: 13, Settled: 14, Lag: 40, InFlight: 15, OldestUnsettled: at(16), WaitForKey: 17,
				StuckKeys: []KeyStats{{Key: `k\n`, Waiting: 18, Oldest: at(19)}},
			}},
		}},
	}
	require.Equal(t, want, listenerStats(anyPort, l))
	l.stats.Held, want.State = true, "held"
	require.Equal(t, want, listenerStats(anyPort, l))
	l.stats.Draining, want.State = true, "draining"
	require.Equal(t, want, listenerStats(anyPort, l))
}

// What was taken of the memory is shown for the direction that took it.
func TestStats_MemoryOfEachDirection(t *testing.T) {
	m := newTestManager(t, ManagerConfig{Acked: AckedConfig{WindowBytes: 2 << 20, MemoryLimit: 16 << 20}})
	for budget, bytes := range map[*flow.Budget]int{m.kept: 1 << 20, m.held: 2 << 20} {
		w := flow.NewWindow(flow.Amount{Messages: 1, Bytes: 2 << 20}, budget)
		w.Open()
		require.NotZero(t, w.Take(flow.Amount{Messages: 1, Bytes: bytes}))
	}
	got := m.Stats().Memory
	require.Equal(t, 16<<20, got.Limit)
	require.Less(t, got.Sending, got.Receiving)
	require.Positive(t, got.Sending)
}

// Stats and the hooks count each delivery as what it was: the hooks by the topic's name on the wire, and its group.
func TestStats_CountWhatASubscriptionDoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		watch, log := &spy{}, traceLog{testkit.NewLog()}
		topic := newBubbleTopic(t)
		topic.logger = log
		sub := topic.subscribe(t.Context(), SubscriberConfig{
			MaxAttempts: 3, NackResendSleep: time.Second, OnFailure: func(*message.Message, error) {},
		})
		synctest.Wait()
		sub.subscriber.manager.hooks = hook.NewSet([]hooks.Hook{watch}, watermill.NopLogger{})
		sub.topic = "127.0.0.1:1/orders"
		answer := func(nacks int) {
			topic.feed(1)
			before := sub.stats().Redelivered
			for i := range nacks {
				require.True(t, next(t, sub).Nack())
				synctest.Wait()
				require.Equal(t, before+uint64(min(i+1, 2)), sub.stats().Redelivered, "before the wait")
				time.Sleep(3*time.Second - time.Millisecond)
				synctest.Wait()
			}
		}
		answer(2)
		next(t, sub).Ack()
		synctest.Wait()
		require.EqualValues(t, 2, sub.stats().Redelivered)
		require.Zero(t, sub.stats().DeadLettered)
		answer(3)
		require.EqualValues(t, 4, sub.stats().Redelivered)
		require.EqualValues(t, 1, sub.stats().DeadLettered)
		again := func(attempt int) hooks.Redelivered {
			return hooks.Redelivered{Topic: "orders", Group: "g", Attempt: attempt, Delay: time.Duration(attempt) * time.Second}
		}
		require.Equal(t, []hooks.Redelivered{again(1), again(2), again(1), again(2)}, of[hooks.Redelivered](watch))
		var logged []any
		for _, line := range linesOf(log.Log) {
			if line.Msg == "Message is delivered again" {
				logged = append(logged, line.Fields["attempt"], line.Fields["delay"])
			}
		}
		require.Equal(t, []any{1, time.Second, 2, 2 * time.Second, 1, time.Second, 2, 2 * time.Second}, logged)
		dead := of[hooks.DeadLettered](watch)
		require.Len(t, dead, 1)
		require.Equal(t, hooks.DeadLettered{Topic: "orders", Group: "g", Reason: dead[0].Reason}, dead[0])
		var spent *AttemptsExhaustedError
		require.ErrorAs(t, dead[0].Reason, &spent)
		require.Equal(t, 3, spent.Attempts)
		require.Equal(t, 2*(3*time.Second-time.Millisecond), spent.Age)
	})
}

// Messages that were handled together are as old as the oldest of them, and as large as all.
func TestHooks_SayWhatWasHandledTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, topic, _ := stillPump(t, 10, SubscriberConfig{})
		p.topic, p.subscriber.manager.hooks = "127.0.0.1:1/orders", hook.NewSet([]hooks.Hook{&spy{}}, watermill.NopLogger{})
		time.Sleep(time.Minute)
		topic.feed(1) // "10": two bytes
		var all []dispatch.Delivery
		for range 11 {
			d, _, ok := p.member.Take()
			require.True(t, ok)
			all = append(all, d)
		}
		require.Equal(t, hooks.Handled{Topic: "orders", Group: "g", Messages: 11, Bytes: 12, Age: time.Minute}, p.handled(all...))
		require.Equal(t, hooks.Handled{Topic: "orders", Group: "g", Messages: 2, Bytes: 3, Age: time.Minute}, p.handled(all[10], all[0]))
		p.member.Return(all...)
	})
}
