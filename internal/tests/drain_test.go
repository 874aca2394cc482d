package tests

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/message/router/middleware"
	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/route"
)

// tally counts what handlers have handled, by payload.
type tally struct {
	mu    sync.Mutex
	times map[string]int
	order []string
}

func (a *tally) add(payload string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.times == nil {
		a.times = map[string]int{}
	}
	a.times[payload]++
	a.order = append(a.order, payload)
}

func (a *tally) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.times)
}

// requireOnce wants each of n messages once.
func (a *tally) requireOnce(t *testing.T, n int) {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	require.Len(t, a.times, n)
	for payload, times := range a.times {
		require.Equal(t, 1, times, payload)
	}
}

// handlesIn is a handler that takes a while for each message.
func (a *tally) handlesIn(each time.Duration) message.NoPublishHandlerFunc {
	return func(msg *message.Message) error {
		time.Sleep(each) // a handler's work
		a.add(string(msg.Payload))
		return nil
	}
}

// runRouter runs a Router, and returns when all of its handlers have subscribed.
func runRouter(ctx context.Context, t *testing.T, r *message.Router) (ended <-chan error) {
	t.Helper()
	ended = later(func() error { return r.Run(ctx) })
	<-r.Running()
	return ended
}

func newRouter(t *testing.T) *message.Router {
	t.Helper()
	r, err := message.NewRouter(message.RouterConfig{CloseTimeout: patience}, watermill.NopLogger{})
	require.NoError(t, err)
	return r
}

// endings are the ways in which an application ends its Router.
var endings = map[string]func(r *message.Router, cancel context.CancelFunc) error{
	"Router.Close":           func(r *message.Router, _ context.CancelFunc) error { return r.Close() },
	"Run's context is ended": func(_ *message.Router, cancel context.CancelFunc) error { cancel(); return nil },
}

// TestDrain_UnderARouter: the Router cancels its subscriptions first, and reads until their channels are closed; what nobody else
// keeps is handled by then.
func TestDrain_UnderARouter(t *testing.T) {
	const count = 200
	for name, end := range endings {
		for _, inFlight := range []int{1, 16} {
			for _, key := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s, %d in flight, key %v", name, inFlight, key), func(t *testing.T) {
					t.Parallel()
					cfg := buffstreams.SubscriberConfig{ConsumerGroup: "g", MaxInFlight: inFlight, CloseTimeout: patience, ListenAddress: "127.0.0.1:0"}
					if key {
						cfg.Key = func(msg *message.Message) string { return fmt.Sprint(len(msg.Payload)) }
					}
					sub, err := buffstreams.NewSubscriber(cfg, nil)
					require.NoError(t, err)
					addr, err := sub.Addr("a")
					require.NoError(t, err)
					var a, b tally
					r := newRouter(t)
					r.AddConsumerHandler("a", "a", sub, a.handlesIn(time.Millisecond))
					r.AddConsumerHandler("b", "b", sub, b.handlesIn(time.Millisecond))
					ctx, cancel := context.WithCancel(t.Context())
					defer cancel()
					ended := runRouter(ctx, t, r)
					publishAndLeave(t, addr.String()+"/a", count)
					publishAndLeave(t, addr.String()+"/b", count)
					require.NoError(t, end(r, cancel))
					require.NoError(t, requireResult(t, ended))
					a.requireOnce(t, count)
					b.requireOnce(t, count)
					require.NoError(t, sub.Close())
					if inFlight == 1 {
						require.Equal(t, numbers(0, count), a.order)
					}
				})
			}
		}
	}
}

// TestDrain_TwoHandlersOnOneTopic, of one group and of none.
func TestDrain_TwoHandlersOnOneTopic(t *testing.T) {
	const count = 100
	for _, group := range []string{"g", ""} {
		t.Run("group "+group, func(t *testing.T) {
			m, err := buffstreams.NewManager(buffstreams.ManagerConfig{})
			require.NoError(t, err)
			sub, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{
				Manager: m, ConsumerGroup: group, CloseTimeout: patience, ListenAddress: "127.0.0.1:0",
			}, nil)
			require.NoError(t, err)
			addr, err := sub.Addr("a")
			require.NoError(t, err)
			var a, b tally
			r := newRouter(t)
			r.AddConsumerHandler("a", "a", sub, a.handlesIn(time.Millisecond))
			r.AddConsumerHandler("b", "a", sub, b.handlesIn(time.Millisecond))
			ended := runRouter(t.Context(), t, r)
			publishAndLeave(t, addr.String()+"/a", count)
			require.NoError(t, r.Close())
			require.NoError(t, requireResult(t, ended))
			require.NoError(t, sub.Close())
			require.NoError(t, m.Close())
			if group == "" {
				a.requireOnce(t, count)
				b.requireOnce(t, count)
				return
			}
			require.Equal(t, count, a.count()+b.count())
		})
	}
}

// TestDrain_NacksAreRedelivered in their time, as long as there is some, and their dead letters published.
func TestDrain_NacksAreRedelivered(t *testing.T) {
	m, err := buffstreams.NewManager(buffstreams.ManagerConfig{})
	require.NoError(t, err)
	var dead tally
	sub, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{
		Manager: m, ConsumerGroup: "g", CloseTimeout: patience, ListenAddress: "127.0.0.1:0",
		NackResendSleep: 10 * time.Millisecond, MaxAttempts: 3, DeadLetterTopic: "dead",
		DeadLetter: letters(func(msg *message.Message) error {
			dead.add(string(msg.Payload))
			if len(dead.order)%2 == 1 {
				return errors.New("not yet")
			}
			return nil
		}),
	}, nil)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	messages, err := sub.Subscribe(ctx, "a")
	require.NoError(t, err)
	addr, err := sub.Addr("a")
	require.NoError(t, err)
	publishAndLeave(t, addr.String()+"/a", 4)
	attempts := map[string]int{}
	for msg := range messages {
		cancel()
		payload := string(msg.Payload)
		if attempts[payload]++; payload == "3" || attempts[payload] == 2 && payload != "1" {
			msg.Ack()
		} else {
			msg.Nack()
		}
	}
	require.Equal(t, map[string]int{"0": 2, "1": 3, "2": 2, "3": 1}, attempts)
	require.Equal(t, []string{"1", "1"}, dead.order, "its publisher failed once")
	require.NoError(t, sub.Close())
	require.NoError(t, m.Close())
}

// TestDrain_EmitsNothingThatASenderKeeps, and leaves everything to a member that lives on.
func TestDrain_EmitsNothingThatASenderKeeps(t *testing.T) {
	h := newHouse(t, buffstreams.ManagerConfig{})
	sub := h.newSubscriber(t, func(c *buffstreams.SubscriberConfig) { c.CloseTimeout = patience })
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	messages, err := sub.Subscribe(ctx, h.topic("a"))
	require.NoError(t, err)
	_, pub := newPeer(t, buffstreams.ManagerConfig{CloseTimeout: 10 * time.Millisecond})
	require.NoError(t, pub.Publish(h.topic("a"), newMessages(3)...))
	publishAndLeave(t, h.topic("a"), 3)
	first := receive(t, messages)
	cancel()
	first.Ack()
	require.Equal(t, numbers(0, 3), receiveAcked(t, messages, 3), "of the publisher that has left")
	_, open := <-messages
	require.False(t, open)
	require.Equal(t, numbers(1, 3), receiveAcked(t, subscribe(t, sub, h.topic("a")), 2), "of the one that is there")
}

func TestDrain_LeavesTheRestToAMemberThatLivesOn(t *testing.T) {
	h := newHouse(t, buffstreams.ManagerConfig{})
	sub := h.newSubscriber(t, func(c *buffstreams.SubscriberConfig) { c.CloseTimeout = patience })
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	messages, err := sub.Subscribe(ctx, h.topic("a"))
	require.NoError(t, err)
	publishAndLeave(t, h.topic("a"), 6)
	receiveAcked(t, messages, 1)
	cancel()
	receiveAcked(t, messages, 1)
	sibling := subscribe(t, sub, h.topic("a"))
	var rest []string
	for msg := range messages { // one may be in the channel
		rest = append(rest, string(msg.Payload))
		msg.Ack()
	}
	require.LessOrEqual(t, len(rest), 2)
	rest = append(rest, receiveAcked(t, sibling, 4-len(rest))...)
	slices.Sort(rest)
	require.Equal(t, numbers(2, 6), rest)
}

// TestDrain_SaysWhatIsLeft when the time is over: Close counts it, and OnFailure gets the bytes.
func TestDrain_SaysWhatIsLeft(t *testing.T) {
	const count = 20
	for name, end := range endings {
		t.Run(name, func(t *testing.T) {
			var left failures
			m, err := buffstreams.NewManager(buffstreams.ManagerConfig{CloseTimeout: 50 * time.Millisecond, OnFailure: left.add})
			require.NoError(t, err)
			sub, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{
				Manager: m, ConsumerGroup: "g", CloseTimeout: 200 * time.Millisecond, ListenAddress: "127.0.0.1:0",
			}, nil)
			require.NoError(t, err)
			addr, err := sub.Addr("a")
			require.NoError(t, err)
			var handled tally
			r := newRouter(t)
			r.AddConsumerHandler("a", "a", sub, func(msg *message.Message) error {
				if string(msg.Payload) == "5" {
					<-msg.Context().Done() // it is stuck
					return msg.Context().Err()
				}
				handled.add(string(msg.Payload))
				return nil
			})
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			ended := runRouter(ctx, t, r)
			publishAndLeave(t, addr.String()+"/a", count)
			require.NoError(t, end(r, cancel))
			require.NoError(t, requireResult(t, ended))
			require.NoError(t, sub.Close())
			requireUndelivered(t, m.Close(), "a", count-5)
			require.Equal(t, numbers(5, count), left.got())
			handled.requireOnce(t, 5)
		})
	}
}

// TestDrain_WithAPublisherOfItsOwn: a Router whose handlers publish to the Manager that they are subscribed at. Each message is
// handled, or counted and given to OnFailure.
func TestDrain_WithAPublisherOfItsOwn(t *testing.T) {
	const count = 200
	for _, pubsub := range []bool{false, true} {
		for name, end := range endings {
			t.Run(fmt.Sprintf("%s, PubSub %v", name, pubsub), func(t *testing.T) {
				var left failures
				manager := buffstreams.ManagerConfig{CloseTimeout: patience, OnFailure: left.add}
				var sub message.Subscriber
				var pub message.Publisher
				var ends func() error
				if pubsub {
					ps, err := buffstreams.NewPubSub(buffstreams.PubSubConfig{Manager: manager}, nil)
					require.NoError(t, err)
					sub, pub, ends = ps, ps, ps.Close
				} else {
					h := newShared(t, manager)
					sub, pub = h.sub, h.pub
					ends = func() error { return errors.Join(h.pub.Close(), h.sub.Close(), h.manager.Close()) }
				}
				var handled tally
				r := newRouter(t)
				r.AddConsumerHandler("own", "own", sub, handled.handlesIn(time.Millisecond))
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				ended := runRouter(ctx, t, r)
				require.NoError(t, pub.Publish("own", newMessages(count)...))
				require.NoError(t, end(r, cancel))
				require.NoError(t, requireResult(t, ended))
				err := ends()
				rest := left.got()
				if len(rest) > 0 {
					requireUndelivered(t, err, "own", len(rest))
				} else {
					require.NoError(t, err)
				}
				for _, payload := range rest {
					handled.add(payload)
				}
				handled.requireOnce(t, count)
			})
		}
	}
}

// shared is both ends on one Manager.
type shared struct {
	manager *buffstreams.Manager
	sub     *buffstreams.Subscriber
	pub     *buffstreams.Publisher
}

func newShared(t *testing.T, cfg buffstreams.ManagerConfig) shared {
	t.Helper()
	m, err := buffstreams.NewManager(cfg)
	require.NoError(t, err)
	sub, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{Manager: m, ConsumerGroup: "g", ListenAddress: "127.0.0.1:0"}, nil)
	require.NoError(t, err)
	addr, err := sub.Addr("a")
	require.NoError(t, err)
	pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{Manager: m, Resolver: route.To(addr.String())}, nil)
	require.NoError(t, err)
	return shared{m, sub, pub}
}

// TestDrain_PoisonQueueOnTheSameManager: handlers publish to the Manager while it drains, with the Publisher that the Router closes
// with the first of its channels. What they fail for and what they produce is handled, or counted.
func TestDrain_PoisonQueueOnTheSameManager(t *testing.T) {
	const count = 100
	for name, end := range endings {
		t.Run(name, func(t *testing.T) {
			var left failures
			h := newShared(t, buffstreams.ManagerConfig{CloseTimeout: patience, OnFailure: left.add})
			require.NoError(t, h.sub.SubscribeInitialize("poison"))
			require.NoError(t, h.sub.SubscribeInitialize("out"))
			poison, err := middleware.PoisonQueue(h.pub, "poison")
			require.NoError(t, err)
			r := newRouter(t)
			r.AddMiddleware(poison)
			r.AddHandler("quiet", "quiet", h.sub, "out", h.pub, message.PassthroughHandler) // its channel could be closed first
			r.AddHandler("works", "in", h.sub, "out", h.pub, func(msg *message.Message) ([]*message.Message, error) {
				time.Sleep(time.Millisecond) // its work
				if strings.HasSuffix(string(msg.Payload), "7") {
					return nil, errors.New("not with me")
				}
				return []*message.Message{newMessage(string(msg.Payload))}, nil
			})
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			addr, err := h.sub.Addr("in")
			require.NoError(t, err)
			ended := runRouter(ctx, t, r)
			publishAndLeave(t, addr.String()+"/in", count)
			require.NoError(t, end(r, cancel))
			require.NoError(t, requireResult(t, ended))
			require.NoError(t, h.pub.Close())
			require.NoError(t, h.sub.Close())
			err = h.manager.Close()
			var undelivered *buffstreams.UndeliveredError
			require.ErrorAs(t, err, &undelivered)
			require.Equal(t, count, undelivered.Count, "what waits in out and poison: nobody handles these")
			got := left.got()
			slices.Sort(got)
			want := numbers(0, count)
			slices.Sort(want)
			require.Equal(t, want, got)
			for _, part := range undelivered.Parts {
				require.Equal(t, map[string]int{"out": count - 10, "poison": 10}[part.Topic], part.Count, part.Topic)
			}
		})
	}
}
