package tests

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
)

// TestSubscriber_CloseLeavesStuckCallbacksBehind: it ends in its time, names the callback, and what that had goes back to the
// group. What the callback does later is in vain.
func TestSubscriber_CloseLeavesStuckCallbacksBehind(t *testing.T) {
	t.Parallel()
	for name, change := range stuckCallbacks {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t, buffstreams.ManagerConfig{})
			b := blocker{make(chan struct{}, 10), make(chan struct{})}
			cfg := h.subscriber
			cfg.CloseTimeout, cfg.MaxInFlight = 200*time.Millisecond, 4
			change(&cfg, b.block)
			sub, err := buffstreams.NewSubscriber(cfg, nil)
			require.NoError(t, err)
			messages := subscribe(t, sub, h.topic("a"))
			require.NoError(t, h.newPublisher(t, nil).Publish(h.topic("a"), newMessage("before"), newMessage("stuck"), newMessage("after")))
			before := receive(t, messages)
			require.Equal(t, "before", string(before.Payload))
			want := []string{"before", "stuck", "after"}
			if cfg.MaxAttempts > 0 {
				before.Ack()
				receive(t, messages).Nack()
				receiveAcked(t, messages, 1)
				want = []string{"stuck"}
			}
			<-b.entered
			first, second := later(sub.Close), later(sub.Close)
			require.ErrorContains(t, requireSoon(t, first), name)
			require.ErrorContains(t, requireSoon(t, second), name, "every Close says the same")
			_, open := <-messages
			require.False(t, open, "the channel is closed")
			next := subscribe(t, h.newSubscriber(t, nil), h.topic("a"))
			require.Equal(t, want, receiveAcked(t, next, len(want)))
			close(b.release)
			require.NoError(t, h.newPublisher(t, nil).Publish(h.topic("a"), newMessage("last")))
			require.Equal(t, []string{"last"}, receiveAcked(t, next, 1))
		})
	}
}

// TestSubscriber_CloseLeavesAStuckDedupeStoreBehind, and so does the Close of its Manager.
func TestSubscriber_CloseLeavesAStuckDedupeStoreBehind(t *testing.T) {
	t.Parallel()
	for name, nap := range map[string]time.Duration{"the pump": 0, "a watcher": 20 * time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			stuck := stuckStore{make(chan struct{}, 10), make(chan struct{})}
			sub, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{
				CloseTimeout: 200 * time.Millisecond, MaxInFlight: 2, ListenAddress: "127.0.0.1:0",
				ManagerConfig: buffstreams.ManagerConfig{Acked: buffstreams.AckedConfig{Dedupe: stuck}},
			}, nil)
			require.NoError(t, err)
			messages := subscribe(t, sub, "a")
			addr, err := sub.Addr("a")
			require.NoError(t, err)
			pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{CloseTimeout: time.Millisecond}, nil)
			require.NoError(t, err)
			require.NoError(t, pub.Publish(addr.String()+"/a", newMessage("x")))
			msg := receive(t, messages)
			time.Sleep(nap) // real time: a handler that is not prompt has a watcher
			msg.Ack()
			<-stuck.entered
			require.ErrorContains(t, requireSoon(t, later(sub.Close)), "AckedConfig.Dedupe")
			close(stuck.release)
			_ = pub.Close() // what was not acked is undelivered
		})
	}
}

// TestSubscriber_EndsThoughItsGroupCannotBeSettled: what a subscription without a group leaves counts as acked where another
// stays, which the DedupeStore does not return from.
func TestSubscriber_EndsThoughItsGroupCannotBeSettled(t *testing.T) {
	stuck := stuckStore{make(chan struct{}, 10), make(chan struct{})}
	h := newHouse(t, buffstreams.ManagerConfig{CloseTimeout: 200 * time.Millisecond, Acked: buffstreams.AckedConfig{Dedupe: stuck}})
	cfg := h.subscriber
	cfg.ConsumerGroup, cfg.CloseTimeout = "", 200*time.Millisecond
	sub, err := buffstreams.NewSubscriber(cfg, nil)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ending, err := sub.Subscribe(ctx, h.topic("a"))
	require.NoError(t, err)
	messages := subscribe(t, sub, h.topic("a"))
	_, pub := newPeer(t, buffstreams.ManagerConfig{CloseTimeout: 10 * time.Millisecond})
	require.NoError(t, pub.Publish(h.topic("a"), newMessage("x")))
	receive(t, ending)
	receiveAcked(t, messages, 1)
	cancel()
	<-stuck.entered
	closed := later(func() error {
		for range ending {
			continue
		}
		return nil
	})
	require.NoError(t, requireSoon(t, closed))
	_ = requireSoon(t, later(sub.Close))
	close(stuck.release)
}

// TestSubscriber_EndsInTimeHoweverMuchItGivesBack: a group that was dropped settles what comes back, each message in a DedupeStore
// that does not return.
func TestSubscriber_EndsInTimeHoweverMuchItGivesBack(t *testing.T) {
	const count, timeout = 200, 100 * time.Millisecond // closeGrace for each would be 40 s
	stuck := stuckStore{make(chan struct{}, count), make(chan struct{})}
	h := newHouse(t, buffstreams.ManagerConfig{CloseTimeout: timeout, Acked: buffstreams.AckedConfig{Dedupe: stuck}})
	cfg := h.subscriber
	cfg.MaxInFlight, cfg.CloseTimeout = count, timeout
	sub, err := buffstreams.NewSubscriber(cfg, nil)
	require.NoError(t, err)
	messages := subscribe(t, sub, h.topic("a"))
	_, pub := newPeer(t, buffstreams.ManagerConfig{CloseTimeout: 10 * time.Millisecond})
	require.NoError(t, pub.Publish(h.topic("a"), newMessages(count)...))
	require.Eventually(t, func() bool { return len(messages) == count }, patience, time.Millisecond)
	require.NoError(t, sub.DropGroup(h.topic("a"), cfg.ConsumerGroup))
	began := time.Now()
	require.ErrorContains(t, sub.Close(), "AckedConfig.Dedupe")
	require.Less(t, time.Since(began), timeout+15*time.Second)
	close(stuck.release)
}

// TestSubscriber_StuckCallbacksHoldUpOnlyTheirOwn: other topics of the Subscriber, other groups, and the other messages that
// MaxInFlight allows go on. A Key or Unmarshaler holds up its subscription.
func TestSubscriber_StuckCallbacksHoldUpOnlyTheirOwn(t *testing.T) {
	for name, change := range stuckCallbacks {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t, buffstreams.ManagerConfig{})
			b := blocker{make(chan struct{}, 10), make(chan struct{})}
			var own bool
			sub := h.newSubscriber(t, func(c *buffstreams.SubscriberConfig) {
				c.MaxInFlight = 2
				change(c, b.block)
				own = c.MaxAttempts > 0
			})
			messages, others := subscribe(t, sub, h.topic("a")), subscribe(t, sub, h.topic("b"))
			group := subscribe(t, h.newSubscriber(t, func(c *buffstreams.SubscriberConfig) { c.ConsumerGroup = "other" }), h.topic("a"))
			pub := h.newPublisher(t, nil)
			require.NoError(t, pub.Publish(h.topic("a"), newMessage("stuck")))
			if own {
				receive(t, messages).Nack()
			}
			<-b.entered
			require.NoError(t, pub.Publish(h.topic("a"), newMessage("x")))
			require.NoError(t, pub.Publish(h.topic("b"), newMessage("y")))
			require.Equal(t, []string{"y"}, receiveAcked(t, others, 1))
			require.Equal(t, []string{"stuck", "x"}, receiveAcked(t, group, 2))
			if own {
				require.Equal(t, []string{"x"}, receiveAcked(t, messages, 1))
			}
			close(b.release)
			if !own {
				require.Equal(t, []string{"stuck", "x"}, receiveAcked(t, messages, 2))
			}
		})
	}
}

// TestSubscriber_AStuckKeyHoldsNoLock: another member of the group takes messages, in order, when the key is known, and its
// Close waits for nothing of the stuck one.
func TestSubscriber_AStuckKeyHoldsNoLock(t *testing.T) {
	h := newHouse(t, buffstreams.ManagerConfig{})
	b := blocker{make(chan struct{}, 10), make(chan struct{})}
	key := func(msg *message.Message) string {
		if string(msg.Payload) == "0" {
			b.block()
		}
		return "key"
	}
	change := func(c *buffstreams.SubscriberConfig) { c.MaxInFlight, c.Key = 4, key }
	stuck := subscribe(t, h.newSubscriber(t, change), h.topic("a"))
	pub := h.newPublisher(t, nil)
	require.NoError(t, pub.Publish(h.topic("a"), newMessage("0")))
	<-b.entered
	cfg := h.subscriber
	change(&cfg)
	cfg.CloseTimeout = 200 * time.Millisecond
	member, err := buffstreams.NewSubscriber(cfg, nil)
	require.NoError(t, err)
	subscribe(t, member, h.topic("a"))
	require.NoError(t, pub.Publish(h.topic("a"), newMessage("1"), newMessage("2")))
	require.NoError(t, requireSoon(t, later(member.Close)))
	close(b.release)
	require.Equal(t, []string{"0", "1", "2"}, receiveAcked(t, stuck, 3))
}

// TestSubscriber_CallbacksMayCallBack: they publish to the peer that they are called by, and subscribe there.
func TestSubscriber_CallbacksMayCallBack(t *testing.T) {
	for name, change := range stuckCallbacks {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t, buffstreams.ManagerConfig{})
			pub, plain := h.newPublisher(t, nil), h.newSubscriber(t, nil)
			copies := subscribe(t, plain, h.topic("copies"))
			result := make(chan error, 10)
			var sub *buffstreams.Subscriber
			sub = h.newSubscriber(t, func(c *buffstreams.SubscriberConfig) {
				change(c, func() {
					_, err := sub.Subscribe(context.Background(), h.topic("more"))
					result <- errors.Join(err, pub.Publish(h.topic("copies"), newMessage("copy")))
				})
			})
			messages := subscribe(t, sub, h.topic("a"))
			require.NoError(t, pub.Publish(h.topic("a"), newMessage("stuck")))
			if msg := receive(t, messages); len(result) == 0 {
				msg.Nack()
			} else {
				msg.Ack()
			}
			require.NoError(t, <-result)
			require.Equal(t, []string{"copy"}, receiveAcked(t, copies, 1))
		})
	}
}

// TestSubscriber_CallbacksMayClose: Close waits for the callback that calls it no longer than CloseTimeout, and names it.
func TestSubscriber_CallbacksMayClose(t *testing.T) {
	t.Parallel()
	for name, change := range stuckCallbacks {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t, buffstreams.ManagerConfig{})
			result := make(chan error, 10)
			cfg := h.subscriber
			cfg.CloseTimeout = 200 * time.Millisecond
			var sub *buffstreams.Subscriber
			change(&cfg, func() { result <- sub.Close() })
			sub, err := buffstreams.NewSubscriber(cfg, nil)
			require.NoError(t, err)
			messages := subscribe(t, sub, h.topic("a"))
			require.NoError(t, h.newPublisher(t, nil).Publish(h.topic("a"), newMessage("stuck")))
			if cfg.MaxAttempts > 0 {
				receive(t, messages).Nack()
			}
			require.ErrorContains(t, requireSoon(t, result), name)
		})
	}
}

// TestSubscriber_CloseIsNoFailedAttempt: what handlers have when Close gives them up goes back, whatever MaxAttempts says,
// also if they nack it because their context was cancelled.
func TestSubscriber_CloseIsNoFailedAttempt(t *testing.T) {
	for name, change := range map[string]func(*buffstreams.SubscriberConfig){
		"MaxAttempts": func(c *buffstreams.SubscriberConfig) { c.MaxAttempts = 1 },
		"MaxAge":      func(c *buffstreams.SubscriberConfig) { c.MaxAge = 50 * time.Millisecond },
	} {
		for _, nacks := range []bool{false, true} {
			t.Run(fmt.Sprint(name, ", nacks: ", nacks), func(t *testing.T) {
				h := newHouse(t, buffstreams.ManagerConfig{})
				told := make(chan error, 10)
				pub := h.newPublisher(t, func(c *buffstreams.PublisherConfig) {
					c.OnFailure = func(_ string, _ []byte, err error) { told <- err }
				})
				sub := h.newSubscriber(t, func(c *buffstreams.SubscriberConfig) {
					change(c)
					c.CloseTimeout = 100 * time.Millisecond
				})
				messages := subscribe(t, sub, h.topic("a"))
				require.NoError(t, pub.Publish(h.topic("a"), newMessage("x")))
				msg := receive(t, messages)
				if nacks {
					context.AfterFunc(msg.Context(), func() { msg.Nack() })
				}
				require.NoError(t, sub.Close())
				next := subscribe(t, h.newSubscriber(t, change), h.topic("a"))
				require.Equal(t, []string{"x"}, receiveAcked(t, next, 1))
				require.Empty(t, told)
			})
		}
	}
}

// TestSubscriber_CloseTakesItsTimeoutOnce, though it waits for handlers twice: for what exists nowhere else, and for the rest.
func TestSubscriber_CloseTakesItsTimeoutOnce(t *testing.T) {
	t.Parallel()
	const timeout = 4 * time.Second // of which another is more than a busy machine takes besides
	sub, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{CloseTimeout: timeout, ListenAddress: "127.0.0.1:0"}, nil)
	require.NoError(t, err)
	messages := subscribe(t, sub, "a")
	addr, err := sub.Addr("a")
	require.NoError(t, err)
	pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{CloseTimeout: time.Millisecond}, nil)
	require.NoError(t, err)
	require.NoError(t, pub.Publish(addr.String()+"/a", newMessage("x")))
	_ = pub.Close()      // it leaves the message with the subscriber
	receive(t, messages) // by a handler that is stuck
	began := time.Now()
	_ = sub.Close()
	require.Less(t, time.Since(began), 2*timeout)
	require.Greater(t, time.Since(began), timeout*9/10, "the handler has its time")
}

// TestSubscriber_DeadLetterThatPanicsIsTriedAgain, as one that fails.
func TestSubscriber_DeadLetterThatPanicsIsTriedAgain(t *testing.T) {
	h := newHouse(t, buffstreams.ManagerConfig{})
	var calls atomic.Int32
	dead := make(chan string, 1)
	messages := subscribe(t, h.newSubscriber(t, func(c *buffstreams.SubscriberConfig) {
		c.MaxAttempts, c.DeadLetterTopic = 1, "dead"
		c.DeadLetter = letters(func(msg *message.Message) error {
			if calls.Add(1) == 1 {
				panic("oops")
			}
			dead <- string(msg.Payload)
			return nil
		})
	}), h.topic("a"))
	require.NoError(t, h.newPublisher(t, nil).Publish(h.topic("a"), newMessages(2)...))
	receive(t, messages).Nack()
	require.Equal(t, "0", <-dead)
	require.Equal(t, []string{"1"}, receiveAcked(t, messages, 1))
}
