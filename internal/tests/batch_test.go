package tests

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/batch"
	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
)

func many(n int) func(*buffstreams.SubscriberConfig) {
	return func(c *buffstreams.SubscriberConfig) { c.MaxInFlight = n }
}

// ledger keeps what batches had, and how many at most.
type ledger struct {
	mu      sync.Mutex
	handled []string
	largest int
}

func (l *ledger) add(msgs []*message.Message) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.handled = append(l.handled, payloads(msgs)...)
	l.largest = max(l.largest, len(msgs))
	return len(l.handled)
}

// places are the numbers of messages.
func places(t *testing.T, payloads []string) (all []int) {
	for _, p := range payloads {
		n, err := strconv.Atoi(p)
		require.NoError(t, err)
		all = append(all, n)
	}
	return all
}

// Failures, panics and lost connections change neither the order nor what is handled.
func TestBatch_KeepsOrderThroughFailuresAndCuts(t *testing.T) {
	const count = 2000
	testkit.CheckLeaks(t)
	h := newHouse(t, buffstreams.ManagerConfig{Acked: quick(buffstreams.AckedConfig{})})
	n := newNetwork(t, time.Millisecond, 0)
	pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{
		Confirm:       buffstreams.ConfirmEnqueued,
		ManagerConfig: buffstreams.ManagerConfig{Dial: n.dial, Acked: quick(buffstreams.AckedConfig{})},
	}, nil)
	require.NoError(t, err)
	sub := h.newSubscriber(t, many(256))
	ctx, cancel := context.WithCancel(context.Background())
	messages, err := sub.Subscribe(ctx, h.topic("a"))
	require.NoError(t, err)
	var l ledger
	calls := 0
	ended := later(func() error {
		return batch.Run(context.Background(), messages, func(_ context.Context, msgs []*message.Message) error {
			switch calls++; {
			case calls%7 == 0:
				panic("oops")
			case calls%5 == 0:
				l.add(msgs[:len(msgs)/2])
				return &batch.FromError{Index: len(msgs) / 2, Err: errors.New("wanted")}
			}
			if l.add(msgs) == count {
				cancel()
			}
			return nil
		}, batch.Config{Size: 64, Sleep: time.Millisecond, SleepCap: time.Millisecond})
	})
	for i, m := range newMessages(count) {
		if i%500 == 250 {
			n.cut()
			n.restore()
		}
		require.NoError(t, pub.Publish(h.topic("a"), m))
	}
	require.NoError(t, requireResult(t, ended))
	require.Equal(t, numbers(0, count), l.handled)
	require.NoError(t, pub.Close())
}

// A subscription that closes while a batch is handled waits for it, and what was acked does not come again. Each subscription has
// its order; Run may have read on when the first message that no handler has goes back.
func TestBatch_CloseInFlight(t *testing.T) {
	h := newHouse(t, buffstreams.ManagerConfig{})
	pub := h.newPublisher(t, nil)
	ctx, cancel := context.WithCancel(context.Background())
	messages, err := h.newSubscriber(t, many(16)).Subscribe(ctx, h.topic("a"))
	require.NoError(t, err)
	var l ledger
	begun, let := make(chan struct{}), make(chan struct{})
	ended := later(func() error {
		return batch.Run(context.Background(), messages, func(_ context.Context, msgs []*message.Message) error {
			if l.add(msgs) == len(msgs) {
				close(begun)
				<-let
			}
			return nil
		}, batch.Config{Size: 8})
	})
	require.NoError(t, pub.Publish(h.topic("a"), newMessages(40)...))
	await(t, begun)
	cancel()
	close(let)
	require.NoError(t, requireResult(t, ended))
	rest := subscribe(t, h.newSubscriber(t, nil), h.topic("a"))
	next := receiveAcked(t, rest, 40-len(l.handled))
	require.Equal(t, numbers(0, 8), l.handled[:8])
	for _, part := range [][]string{l.handled, next} {
		require.IsIncreasing(t, places(t, part))
	}
	require.ElementsMatch(t, numbers(0, 40), append(l.handled, next...))
}

// A handler that does not end is told by its context, and its messages go to the next.
func TestBatch_CloseEndsAStuckHandler(t *testing.T) {
	h := newHouse(t, buffstreams.ManagerConfig{})
	sub := h.newSubscriber(t, func(c *buffstreams.SubscriberConfig) { c.MaxInFlight, c.CloseTimeout = 8, 50*time.Millisecond })
	messages := subscribe(t, sub, h.topic("a"))
	begun := make(chan struct{})
	ended := later(func() error {
		return batch.Run(context.Background(), messages, func(ctx context.Context, _ []*message.Message) error {
			close(begun)
			<-ctx.Done()
			return ctx.Err()
		}, batch.Config{Size: 8})
	})
	require.NoError(t, h.newPublisher(t, nil).Publish(h.topic("a"), newMessages(8)...))
	await(t, begun)
	require.NoError(t, sub.Close())
	require.NoError(t, requireResult(t, ended))
	require.Equal(t, numbers(0, 8), receiveAcked(t, subscribe(t, h.newSubscriber(t, nil), h.topic("a")), 8))
}

// A message that was given up by AckWaitTimeout while it waited to be tried again is not handled twice at a time.
func TestBatch_AckWaitTimeout(t *testing.T) {
	h := newHouse(t, buffstreams.ManagerConfig{})
	sub := h.newSubscriber(t, func(c *buffstreams.SubscriberConfig) { c.MaxInFlight, c.AckWaitTimeout = 4, 50*time.Millisecond })
	ctx, cancel := context.WithCancel(context.Background())
	messages, err := sub.Subscribe(ctx, h.topic("a"))
	require.NoError(t, err)
	var calls atomic.Int64
	ended := later(func() error {
		return batch.Run(context.Background(), messages, func(ctx context.Context, _ []*message.Message) error {
			if calls.Add(1) == 1 {
				<-ctx.Done() // by AckWaitTimeout
				return ctx.Err()
			}
			cancel()
			return nil
		}, batch.Config{Size: 1, Sleep: time.Hour, SleepCap: time.Hour})
	})
	require.NoError(t, h.newPublisher(t, nil).Publish(h.topic("a"), newMessage("x")))
	require.NoError(t, requireResult(t, ended))
	require.EqualValues(t, 2, calls.Load())
}

// MaxAttempts and dead letters of the subscriber count what Run nacks.
func TestBatch_GivesUpToTheSubscriber(t *testing.T) {
	h := newHouse(t, buffstreams.ManagerConfig{})
	dead := make(chan string, 10)
	sub := h.newSubscriber(t, func(c *buffstreams.SubscriberConfig) {
		c.MaxInFlight, c.MaxAttempts = 8, 2
		c.OnFailure = func(m *message.Message, _ error) { dead <- string(m.Payload) }
	})
	ctx, cancel := context.WithCancel(context.Background())
	messages, err := sub.Subscribe(ctx, h.topic("a"))
	require.NoError(t, err)
	ended := later(func() error {
		return batch.Run(context.Background(), messages, func(_ context.Context, msgs []*message.Message) error {
			each := make(batch.Errors, len(msgs))
			for i, m := range msgs {
				if string(m.Payload) == "3" {
					each[i] = errors.New("wanted")
				}
			}
			return each
		}, batch.Config{MaxAttempts: 1})
	})
	require.NoError(t, h.newPublisher(t, nil).Publish(h.topic("a"), newMessages(8)...))
	require.Equal(t, "3", await(t, dead))
	cancel()
	require.NoError(t, requireResult(t, ended))
}

// A handler that acks each message as it goes has its context until the last.
func TestBatch_HandlerAcksEach(t *testing.T) {
	h := newHouse(t, buffstreams.ManagerConfig{})
	ctx, cancel := context.WithCancel(context.Background())
	messages, err := h.newSubscriber(t, many(16)).Subscribe(ctx, h.topic("a"))
	require.NoError(t, err)
	require.NoError(t, h.newPublisher(t, nil).Publish(h.topic("a"), newMessages(8)...))
	ended := later(func() error {
		return batch.Run(context.Background(), messages, func(ctx context.Context, msgs []*message.Message) error {
			defer cancel()
			for _, m := range msgs {
				m.Ack()
				<-m.Context().Done() // the subscription has seen the ack
				if ctx.Err() != nil {
					return ctx.Err()
				}
			}
			return nil
		}, batch.Config{Size: 8})
	})
	require.NoError(t, requireResult(t, ended))
	require.NoError(t, h.manager.Close(), "all are acked")
}
