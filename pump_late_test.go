package buffstreams

import (
	"bytes"
	"context"
	"regexp"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/dispatch"
	"github.com/buffstreams/watermill-buffstreams/internal/flow"
)

// stillListener is a listener that does nothing: its topics are the test's.
type stillListener struct {
	listener
	done chan struct{}
}

func (l *stillListener) Done() <-chan struct{}                   { return l.done }
func (*stillListener) SyncAcks(context.Context, *dispatch.Topic) {}

// countingSource counts what was settled.
type countingSource struct{ settled atomic.Int64 }

func (s *countingSource) Settled(first, last uint64)     { s.settled.Add(int64(last - first + 1)) }
func (*countingSource) Refused(uint64, dispatch.Refusal) {}
func (*countingSource) Kept() bool                       { return true }

// lateSubscription is a subscription in a bubble, to a topic that has got n messages in one run.
func lateSubscription(t *testing.T, n int, cfg SubscriberConfig) (*subscription, *dispatch.Topic, *countingSource) {
	t.Helper()
	cfg.setDefaults()
	window := flow.NewWindow(flow.Amount{Messages: n, Bytes: 1 << 20}, flow.NewBudget(1<<20))
	topic := dispatch.NewTopic("orders", window, func(n int) int { return n })
	s := &Subscriber{cfg: cfg, manager: &Manager{}, logger: watermill.NopLogger{}, subs: map[*subscription]struct{}{}}
	sub := newSubscription(t.Context(), s, "orders", topic, &stillListener{done: make(chan struct{})})
	source, size := &countingSource{}, 0
	var encoded [][]byte
	for range n {
		data, err := EnvelopeMarshaler{}.Marshal(nil, "", textMessage("as it arrived"))
		require.NoError(t, err)
		encoded, size = append(encoded, data), size+len(data)
	}
	require.Equal(t, flow.Amount{Messages: n, Bytes: size}, window.Take(flow.Amount{Messages: n, Bytes: size}))
	topic.Append(source, 1, encoded, time.Now(), nil)
	t.Cleanup(func() {
		sub.closeInTime()
		<-sub.done
	})
	return sub, topic, source
}

// hold takes n messages and writes over what they have, as a handler may.
func hold(sub *subscription, n int) (held []*message.Message) {
	for range n {
		msg := <-sub.out
		clear(msg.Payload)
		held = append(held, msg)
	}
	return held
}

// bubble is the number of goroutines in the caller's bubble: others come and go with the tests before.
func bubble() int {
	stacks := make([]byte, 1<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	name := regexp.MustCompile(`synctest bubble \d+\]`).Find(stacks) // the caller's is the first
	return bytes.Count(stacks, name)
}

// Messages that wait for their answer together, as those of a bridge or a batch do, cost neither a goroutine nor a copy each.
func TestLateAcks_CostNoWatchers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 500
		sub, _, source := lateSubscription(t, n, SubscriberConfig{MaxInFlight: n})
		held := hold(sub, n)
		goroutines := bubble()
		time.Sleep(watchAfter - longestLook)
		require.Zero(t, sub.watched.Load())
		require.Equal(t, goroutines, bubble())
		for _, msg := range held[:n-1] {
			msg.Ack()
		}
		synctest.Wait()
		require.EqualValues(t, n-1, source.settled.Load(), "in their order they are settled at once")
		time.Sleep(2 * longestLook)
		synctest.Wait()
		require.EqualValues(t, 1, sub.watched.Load(), "what waits for long has a watcher, and a copy of its own")
		held[n-1].Ack()
		synctest.Wait()
		require.EqualValues(t, n, source.settled.Load())
	})
}

// A message that younger ones have overtaken gets a watcher, so that it holds up none.
func TestLateAcks_OvertakenMessagesHoldUpNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sub, _, source := lateSubscription(t, 10, SubscriberConfig{MaxInFlight: 4})
		held := hold(sub, 4)
		time.Sleep(watchAfter / 2)
		held[1].Ack()
		time.Sleep(longestLook)
		synctest.Wait()
		require.EqualValues(t, 1, source.settled.Load())
		require.EqualValues(t, 1, sub.watched.Load(), "the first, and not the others")
		held[2].Ack()
		held[3].Ack()
		began := time.Now()
		for range 6 { // one after the other, beside the one that is held
			(<-sub.out).Ack()
		}
		require.Zero(t, time.Since(began), "nothing waits for a look")
		held[0].Ack()
		synctest.Wait()
		require.EqualValues(t, 10, source.settled.Load())
	})
}

// A message that is nacked late comes again as it arrived, whatever its handler wrote into it, and whether it had a watcher or not.
func TestLateAcks_RedeliveredAsTheyArrived(t *testing.T) {
	for _, after := range []time.Duration{0, 10 * time.Millisecond, 2 * watchAfter} {
		synctest.Test(t, func(t *testing.T) {
			sub, _, source := lateSubscription(t, 8, SubscriberConfig{MaxInFlight: 8, NackResendSleep: NoSleep})
			held := hold(sub, 8)
			time.Sleep(after)
			for i, msg := range held {
				if i%2 == 1 {
					msg.Nack()
				}
			}
			for range 4 {
				msg := <-sub.out
				require.Equal(t, "as it arrived", string(msg.Payload))
				d, _ := DeliveryFromContext(msg.Context())
				require.Equal(t, 2, d.Attempt)
				msg.Ack()
			}
			for i, msg := range held {
				if i%2 == 0 {
					msg.Ack()
				}
			}
			time.Sleep(longestLook)
			synctest.Wait()
			require.EqualValues(t, 8, source.settled.Load())
		})
	}
}

// A handler's time limit, and members that wait for messages, need the watchers of each message.
func TestLateAcks_WatchedWhereOthersDependOnThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sub, _, _ := lateSubscription(t, 5, SubscriberConfig{MaxInFlight: 5, AckWaitTimeout: time.Minute})
		hold(sub, 5)
		time.Sleep(2 * slowAfter)
		synctest.Wait()
		require.EqualValues(t, 5, sub.watched.Load())
	})
	synctest.Test(t, func(t *testing.T) {
		sub, topic, _ := lateSubscription(t, 5, SubscriberConfig{MaxInFlight: 5, ConsumerGroup: "g"})
		hold(sub, 5)
		member := topic.Join("g", func() {})
		defer member.Leave()
		time.Sleep(2 * slowAfter)
		synctest.Wait()
		require.EqualValues(t, 5, sub.watched.Load())
	})
}
