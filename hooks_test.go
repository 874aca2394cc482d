package buffstreams

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/hooks"
	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
	"github.com/buffstreams/watermill-buffstreams/route"
)

// spy notes every event, in order.
type spy struct {
	mu     sync.Mutex
	events []any
	on     func(e any) // called for each, if it is there
}

func (s *spy) note(e any) {
	s.mu.Lock()
	s.events = append(s.events, e)
	on := s.on
	s.mu.Unlock()
	if on != nil {
		on(e)
	}
}

func (s *spy) OnDialed(e hooks.Dialed)             { s.note(e) }
func (s *spy) OnConnected(e hooks.Connected)       { s.note(e) }
func (s *spy) OnLost(e hooks.Lost)                 { s.note(e) }
func (s *spy) OnAccepted(e hooks.Accepted)         { s.note(e) }
func (s *spy) OnRefused(e hooks.Refused)           { s.note(e) }
func (s *spy) OnAddressState(e hooks.AddressState) { s.note(e) }
func (s *spy) OnMoved(e hooks.Moved)               { s.note(e) }
func (s *spy) OnResolved(e hooks.Resolved)         { s.note(e) }
func (s *spy) OnForgotten(e hooks.Forgotten)       { s.note(e) }
func (s *spy) OnSent(e hooks.Sent)                 { s.note(e) }
func (s *spy) OnReceived(e hooks.Received)         { s.note(e) }
func (s *spy) OnDuplicate(e hooks.Duplicate)       { s.note(e) }
func (s *spy) OnSettled(e hooks.Settled)           { s.note(e) }
func (s *spy) OnHandled(e hooks.Handled)           { s.note(e) }
func (s *spy) OnWindowFull(e hooks.WindowFull)     { s.note(e) }
func (s *spy) OnRedelivered(e hooks.Redelivered)   { s.note(e) }
func (s *spy) OnDeadLettered(e hooks.DeadLettered) { s.note(e) }
func (s *spy) OnRejected(e hooks.Rejected)         { s.note(e) }

// of returns the events of one type.
func of[E any](s *spy) (found []E) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.events {
		if e, ok := e.(E); ok {
			found = append(found, e)
		}
	}
	return found
}

// first waits for an event of a type that is wanted.
func first[E any](t *testing.T, s *spy, wanted func(E) bool) (e E) {
	t.Helper()
	require.Eventually(t, func() bool {
		for _, e = range of[E](s) {
			if wanted(e) {
				return true
			}
		}
		return false
	}, 30*time.Second, 2*time.Millisecond, "%T", e)
	return e
}

func anyOf[E any](E) bool { return true }

func sum[E any](s *spy, of func(*spy) []E, n func(E) int) (total int) {
	for _, e := range of(s) {
		total += n(e)
	}
	return total
}

// The life of a message: everything that happens to it is told at both ends, with the right numbers.
func TestHooks_TellTheLifeOfMessages(t *testing.T) {
	testkit.CheckLeaks(t)
	pubSpy, subSpy := &spy{}, &spy{}
	p := newStatsPair(t,
		PublisherConfig{ManagerConfig: ManagerConfig{Hooks: []hooks.Hook{pubSpy}}},
		SubscriberConfig{
			ConsumerGroup: "g", NackResendSleep: NoSleep, MaxAttempts: 2, CloseTimeout: time.Second,
			ManagerConfig: ManagerConfig{Hooks: []hooks.Hook{subSpy}},
		})
	out, err := p.sub.Subscribe(context.Background(), "127.0.0.1:0/orders")
	require.NoError(t, err)
	const n = 100
	messages := make([]*message.Message, n)
	for i := range messages {
		messages[i] = textMessage("order")
	}
	began := time.Now()
	require.NoError(t, p.pub.Publish(p.topic, messages...))
	for range n {
		(<-out).Ack()
	}
	require.NoError(t, p.pub.Drain(context.Background()))
	took := time.Since(began)

	dialed := first(t, pubSpy, anyOf[hooks.Dialed])
	require.NoError(t, dialed.Err)
	require.Equal(t, dialed.Address, first(t, pubSpy, anyOf[hooks.Connected]).Address)
	require.NotEmpty(t, first(t, subSpy, anyOf[hooks.Accepted]).Peer)
	require.Eventually(t, func() bool { // what is sent can be handled before the hook is told
		return sum(pubSpy, of[hooks.Sent], func(e hooks.Sent) int { return e.Messages }) == n &&
			sum(subSpy, of[hooks.Received], func(e hooks.Received) int { return e.Messages }) == n
	}, 30*time.Second, time.Millisecond)
	bytes := sum(pubSpy, of[hooks.Sent], func(e hooks.Sent) int { return e.Bytes })
	require.Greater(t, bytes, n*len("order"))
	require.Equal(t, bytes, sum(subSpy, of[hooks.Received], func(e hooks.Received) int { return e.Bytes }))
	require.Equal(t, "orders", first(t, subSpy, anyOf[hooks.Received]).Topic)
	require.Eventually(t, func() bool {
		return sum(subSpy, of[hooks.Handled], func(e hooks.Handled) int { return e.Messages }) == n &&
			sum(pubSpy, of[hooks.Settled], func(e hooks.Settled) int { return e.Messages }) == n
	}, 30*time.Second, time.Millisecond)
	require.InDelta(t, bytes, sum(pubSpy, of[hooks.Settled], func(e hooks.Settled) int { return e.Bytes }), float64(bytes)/10)
	for _, e := range of[hooks.Settled](pubSpy) {
		require.Greater(t, e.Age, time.Duration(0))
		require.LessOrEqual(t, e.Age, took+time.Second)
	}
	require.Equal(t, "g", first(t, subSpy, anyOf[hooks.Handled]).Group)
	require.Less(t, len(of[hooks.Sent](pubSpy)), n/2, "they are for each flush, not for each message")

	// One message fails for good.
	require.NoError(t, p.pub.Publish(p.topic, textMessage("bad")))
	(<-out).Nack()
	(<-out).Nack()
	require.Equal(t, 1, first(t, subSpy, anyOf[hooks.Redelivered]).Attempt)
	require.ErrorContains(t, first(t, subSpy, anyOf[hooks.DeadLettered]).Reason, "2 attempts")
	require.Equal(t, "orders", first(t, pubSpy, anyOf[hooks.Rejected]).Topic)
	require.Len(t, of[hooks.Redelivered](subSpy), 1)

	require.NoError(t, p.pub.Close())
	require.True(t, first(t, pubSpy, anyOf[hooks.Lost]).Welcomed)
	require.NotEmpty(t, first(t, subSpy, anyOf[hooks.Lost]).Listener)
	require.Equal(t, n+1, sum(pubSpy, of[hooks.Settled], func(e hooks.Settled) int { return e.Messages }), "each once")
	require.Equal(t, n, sum(subSpy, of[hooks.Handled], func(e hooks.Handled) int { return e.Messages }), "each once")
	require.NoError(t, p.sub.Close())
	require.Empty(t, of[hooks.Refused](subSpy))
	require.Empty(t, of[hooks.Duplicate](subSpy))
}

// A peer that is refused, one that cannot be reached, and a Resolver: each is told.
func TestHooks_TellWhatFails(t *testing.T) {
	pubSpy, subSpy := &spy{}, &spy{}
	p := newStatsPair(t,
		PublisherConfig{
			ManagerConfig: ManagerConfig{Hooks: []hooks.Hook{pubSpy}}, PublishTimeout: 2 * time.Second, Confirm: ConfirmEnqueued,
			Resolver: route.Func(func(context.Context, string) (route.Route, error) {
				return route.Route{}, errors.New("no such service")
			}),
		},
		SubscriberConfig{ManagerConfig: ManagerConfig{Hooks: []hooks.Hook{subSpy}, Acked: AckedConfig{
			Authenticate: func(context.Context, Peer) (string, error) { return "", errors.New("unknown") },
		}}})
	require.NoError(t, p.pub.Publish(p.topic, textMessage("order")))
	require.Error(t, first(t, pubSpy, func(e hooks.Lost) bool { return !e.Welcomed }).Err)
	require.ErrorContains(t, first(t, subSpy, anyOf[hooks.Refused]).Err, "refused")
	require.Error(t, p.pub.Publish("logical", textMessage("order")))
	require.ErrorContains(t, first(t, pubSpy, anyOf[hooks.Resolved]).Err, "no such service")
	require.NoError(t, p.pub.Publish("127.0.0.1:1/x", textMessage("order")))
	require.Error(t, first(t, pubSpy, func(e hooks.Dialed) bool { return e.Err != nil }).Err)
}

// A call that had to wait for room says how long.
func TestHooks_TellThatTheWindowIsFull(t *testing.T) {
	pubSpy := &spy{}
	p := newStatsPair(t, PublisherConfig{PublishTimeout: 200 * time.Millisecond, Confirm: ConfirmEnqueued, ManagerConfig: ManagerConfig{
		Hooks: []hooks.Hook{pubSpy}, Acked: AckedConfig{WindowMessages: 2},
	}}, SubscriberConfig{})
	err := p.pub.Publish(p.topic, textMessage("1"), textMessage("2"), textMessage("3"))
	require.ErrorIs(t, err, ErrTimeout)
	e := first(t, pubSpy, anyOf[hooks.WindowFull])
	require.Equal(t, "orders", e.Topic)
	require.ErrorIs(t, e.Err, ErrTimeout)
	require.GreaterOrEqual(t, e.Wait, 190*time.Millisecond)
}

// A hook that panics at every event changes nothing but the log.
func TestHooks_PanicsAreContained(t *testing.T) {
	log := testkit.NewLog()
	bad := &spy{on: func(any) { panic("hooked") }}
	good := &spy{}
	p := newStatsPair(t,
		PublisherConfig{ManagerConfig: ManagerConfig{Hooks: []hooks.Hook{bad, good}, Logger: log}},
		SubscriberConfig{ManagerConfig: ManagerConfig{Hooks: []hooks.Hook{bad}}, CloseTimeout: time.Second})
	out, err := p.sub.Subscribe(context.Background(), "127.0.0.1:0/orders")
	require.NoError(t, err)
	for range 10 {
		require.NoError(t, p.pub.Publish(p.topic, textMessage("order")))
		(<-out).Ack()
	}
	require.NoError(t, p.pub.Drain(context.Background()))
	require.Positive(t, count(linesOf(log), "error", "A hook panicked"))
	first(t, good, anyOf[hooks.Settled]) // those behind it are called
	require.NoError(t, p.pub.Close())
	require.NoError(t, p.sub.Close())
}

// A hook that blocks holds up its own connection, and no Close for longer than its time-out. Another connection goes on.
func TestHooks_OneThatBlocksHoldsUpItsConnectionOnly(t *testing.T) {
	for _, at := range []any{hooks.Dialed{}, hooks.Connected{}, hooks.Sent{}, hooks.Settled{}} {
		t.Run(fmt.Sprintf("%T", at), func(t *testing.T) {
			testkit.CheckLeaks(t)
			quiet := newStatsPair(t, PublisherConfig{}, SubscriberConfig{CloseTimeout: time.Second})
			release := make(chan struct{})
			pubSpy := &spy{}
			p := newStatsPair(t, PublisherConfig{Confirm: ConfirmEnqueued, ManagerConfig: ManagerConfig{Hooks: []hooks.Hook{pubSpy}}},
				SubscriberConfig{CloseTimeout: time.Second})
			blocked := p.topic[:len(p.topic)-len("/orders")]
			pubSpy.on = func(e any) {
				if fmt.Sprintf("%T", e) == fmt.Sprintf("%T", at) && addressOf(e) == blocked {
					<-release
				}
			}
			for _, pair := range []*statsPair{p, quiet} {
				out, err := pair.sub.Subscribe(context.Background(), "127.0.0.1:0/orders")
				require.NoError(t, err)
				go ackAll(out) // ends with the Subscriber
			}
			require.NoError(t, p.pub.Publish(p.topic, textMessage("held up")))
			first(t, pubSpy, func(e any) bool { return fmt.Sprintf("%T", e) == fmt.Sprintf("%T", at) })
			require.NoError(t, p.pub.Publish(quiet.topic, textMessage("goes on")))
			first(t, pubSpy, func(e hooks.Settled) bool { return e.Address != blocked })

			began := time.Now()
			err := p.pub.Close()
			require.Less(t, time.Since(began), 20*time.Second)
			require.ErrorContains(t, err, "ManagerConfig.Hooks has not returned")
			close(release)
		})
	}
}

func addressOf(e any) string {
	switch e := e.(type) {
	case hooks.Dialed:
		return e.Address
	case hooks.Connected:
		return e.Address
	case hooks.Sent:
		return e.Address
	case hooks.Settled:
		return e.Address
	}
	return ""
}

func ackAll(out <-chan *message.Message) {
	for m := range out {
		m.Ack()
	}
}

// A hook of a subscription that blocks ends neither the Subscriber's Close nor what other subscriptions do.
func TestHooks_OneThatBlocksHoldsUpItsSubscriptionOnly(t *testing.T) {
	testkit.CheckLeaks(t)
	for _, at := range []any{hooks.Handled{}, hooks.Redelivered{}, hooks.Received{}} {
		t.Run(fmt.Sprintf("%T", at), func(t *testing.T) {
			release := make(chan struct{})
			subSpy := &spy{on: func(e any) {
				if fmt.Sprintf("%T", e) == fmt.Sprintf("%T", at) {
					<-release
				}
			}}
			p := newStatsPair(t, PublisherConfig{Confirm: ConfirmEnqueued}, SubscriberConfig{
				ManagerConfig: ManagerConfig{Hooks: []hooks.Hook{subSpy}}, CloseTimeout: 200 * time.Millisecond, NackResendSleep: NoSleep,
			})
			out, err := p.sub.Subscribe(context.Background(), "127.0.0.1:0/orders")
			require.NoError(t, err)
			go func() { // ends with the Subscriber
				for m := range out {
					if _, nack := at.(hooks.Redelivered); nack {
						m.Nack()
					} else {
						m.Ack()
					}
				}
			}()
			require.NoError(t, p.pub.Publish(p.topic, textMessage("order")))
			first(t, subSpy, func(e any) bool { return fmt.Sprintf("%T", e) == fmt.Sprintf("%T", at) })
			began := time.Now()
			require.ErrorContains(t, p.sub.Close(), "ManagerConfig.Hooks has not returned")
			require.Less(t, time.Since(began), 20*time.Second)
			close(release)
			_ = p.pub.Close()
		})
	}
}

// A hook may close what it watches.
func TestHooks_OneMayClose(t *testing.T) {
	testkit.CheckLeaks(t)
	pubSpy := &spy{}
	p := newStatsPair(t, PublisherConfig{Confirm: ConfirmEnqueued, ManagerConfig: ManagerConfig{Hooks: []hooks.Hook{pubSpy}}},
		SubscriberConfig{CloseTimeout: time.Second})
	out, err := p.sub.Subscribe(context.Background(), "127.0.0.1:0/orders")
	require.NoError(t, err)
	go ackAll(out) // ends with the Subscriber
	closed := make(chan error, 1)
	var once sync.Once
	pubSpy.on = func(e any) {
		if _, ok := e.(hooks.Settled); ok {
			once.Do(func() { closed <- p.pub.Close() })
		}
	}
	require.NoError(t, p.pub.Publish(p.topic, textMessage("order")))
	_ = testkit.Receive(t, closed) // it names the hook that it was called from
	require.Error(t, p.pub.Publish(p.topic, textMessage("order")))
}

// What implements nothing would never be called.
func TestHooks_OneThatWatchesNothingIsRefused(t *testing.T) {
	_, err := NewManager(ManagerConfig{Hooks: []hooks.Hook{&spy{}, struct{}{}}})
	require.ErrorContains(t, err, "ManagerConfig.Hooks")
	require.ErrorContains(t, err, "hook 1")
}

// Streams that move are told of, and what they carry is counted wherever it is settled.
func TestHooks_TellOfMoves(t *testing.T) {
	pubSpy := &spy{}
	var subs []*Subscriber
	var addresses []string
	for range 2 {
		sub, err := NewSubscriber(SubscriberConfig{ConsumerGroup: "g", MaxInFlight: 100, CloseTimeout: 200 * time.Millisecond}, nil)
		require.NoError(t, err)
		t.Cleanup(func() { _ = sub.Close() })
		addr, err := sub.Addr("127.0.0.1:0/orders")
		require.NoError(t, err)
		subs, addresses = append(subs, sub), append(addresses, addr.String())
	}
	pub, err := NewPublisher(PublisherConfig{
		ManagerConfig: ManagerConfig{Hooks: []hooks.Hook{pubSpy}},
		Resolver:      route.Static{"orders": {Addresses: addresses, Policy: route.RoundRobin}},
	}, nil)
	require.NoError(t, err)
	defer func() { _ = pub.Close() }()
	held, err := subs[0].Subscribe(context.Background(), "127.0.0.1:0/orders")
	require.NoError(t, err)
	acked, err := subs[1].Subscribe(context.Background(), "127.0.0.1:0/orders")
	require.NoError(t, err)
	go ackAll(acked) // ends with the Subscriber
	const n = 20
	for range n {
		require.NoError(t, pub.Publish("orders", textMessage("order")))
	}
	<-held // and no ack
	require.NoError(t, subs[0].Close())
	require.NoError(t, pub.Drain(context.Background()))
	e := first(t, pubSpy, func(e hooks.Moved) bool { return e.Messages > 0 })
	require.Equal(t, "orders", e.Topic)
	require.Equal(t, addresses, []string{e.From, e.To})
	settled := func() int { return sum(pubSpy, of[hooks.Settled], func(e hooks.Settled) int { return e.Messages }) }
	require.Eventually(t, func() bool { return settled() >= n }, 30*time.Second, time.Millisecond) // Drain can know before the hook
	require.Equal(t, n, settled())
}

// Of the addresses among which a route chooses one is enough for Ready.
func TestStats_ReadyWithOneAddressOfARoute(t *testing.T) {
	p := newStatsPair(t, PublisherConfig{}, SubscriberConfig{})
	out, err := p.sub.Subscribe(context.Background(), "127.0.0.1:0/orders")
	require.NoError(t, err)
	go ackAll(out) // ends with the Subscriber
	there, away := p.topic[:len(p.topic)-len("/orders")], "127.0.0.1:1"
	for policy, ready := range map[route.Policy]bool{route.Failover: true, route.All: false} {
		pub, err := NewPublisher(PublisherConfig{Confirm: ConfirmEnqueued, CloseTimeout: 50 * time.Millisecond,
			Resolver: route.Static{"orders": {Addresses: []string{there, away}, Policy: policy}}}, nil)
		require.NoError(t, err)
		require.NoError(t, pub.Publish("orders", textMessage("order")))
		require.Eventually(t, func() bool {
			pub.stats.at = time.Time{}
			states := map[string]string{}
			for _, a := range pub.Stats().Addresses {
				states[a.Address] = a.State
			}
			return states[there] == "ready" && states[away] == "gone"
		}, 30*time.Second, 10*time.Millisecond)
		look, cancel := context.WithCancel(context.Background())
		cancel()
		if err := pub.Ready(look); ready {
			require.NoError(t, err)
		} else {
			require.ErrorContains(t, err, away+" is gone")
			require.NotContains(t, err.Error(), there)
		}
		_ = pub.Close()
	}
}
