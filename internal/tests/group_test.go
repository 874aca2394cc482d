package tests

import (
	"context"
	"fmt"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
)

func noGroup(c *buffstreams.SubscriberConfig) { c.ConsumerGroup = "" }

// endSubscription cancels a subscription and waits for the end of its channel.
func endSubscription(cancel context.CancelFunc, messages <-chan *message.Message) {
	cancel()
	for range messages {
	}
}

// hookedContext runs a hook when it is asked for Done the first time, which Subscribe does on its way.
type hookedContext struct {
	context.Context
	once sync.Once
	hook func()
}

func (c *hookedContext) Done() <-chan struct{} {
	c.once.Do(c.hook)
	return c.Context.Done()
}

// A subscription to a topic that ends, or is forgotten, while it subscribes is to the one that follows.
func TestSubscription_ToATopicThatEndsMeanwhile(t *testing.T) {
	t.Parallel()
	t.Run("ephemeral", func(t *testing.T) {
		h := newHouse(t, buffstreams.ManagerConfig{})
		first, end := context.WithCancel(context.Background())
		messages, err := h.newSubscriber(t, ephemeral).Subscribe(first, h.topic("a"))
		require.NoError(t, err)
		again, err := h.newSubscriber(t, ephemeral).Subscribe(&hookedContext{
			Context: t.Context(), hook: func() { endSubscription(end, messages) },
		}, h.topic("a"))
		require.NoError(t, err)
		require.NoError(t, h.newPublisher(t, nil).Publish(h.topic("a"), newMessage("x")))
		require.Equal(t, []string{"x"}, receiveAcked(t, again, 1))
	})
	t.Run("forgotten", func(t *testing.T) {
		h := newHouse(t, buffstreams.ManagerConfig{})
		n := newNetwork(t, 0, 0)
		sub := h.newSubscriber(t, nil)
		subscribe(t, sub, h.topic("other")) // the listener is there
		pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{
			ManagerConfig: buffstreams.ManagerConfig{Dial: n.dial, Acked: quick(buffstreams.AckedConfig{})},
		}, nil)
		require.NoError(t, err)
		result := later(func() error { return pub.Publish(h.topic("a"), newMessage("x")) }) // waits for the topic
		require.NoError(t, pub.Publish(h.topic("other"), newMessage("y")))                  // so it has opened the other one
		messages, err := sub.Subscribe(&hookedContext{Context: t.Context(), hook: func() {
			n.cut() // nobody else wants the topic
			n.restore()
		}}, h.topic("a"))
		require.NoError(t, err)
		require.Equal(t, []string{"x"}, receiveAcked(t, messages, 1))
		require.NoError(t, requireResult(t, result))
		require.NoError(t, pub.Close())
	})
}

// Somebody without a group has a look, and what it left holds up no group.
func TestGroup_IsNotHeldUpByASubscriptionThatEnded(t *testing.T) {
	t.Parallel()
	for name, before := range map[string]bool{"it came before": true, "it came later": false} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t, buffstreams.ManagerConfig{Acked: buffstreams.AckedConfig{WindowMessages: 32}})
			look := func() {
				ctx, cancel := context.WithCancel(context.Background())
				messages, err := h.newSubscriber(t, noGroup).Subscribe(ctx, h.topic("a"))
				require.NoError(t, err)
				require.NoError(t, h.newPublisher(t, nil).Publish(h.topic("a"), newMessages(3)...))
				receiveAcked(t, messages, 1)
				receive(t, messages)
				endSubscription(cancel, messages)
			}
			if before {
				look()
			}
			messages := subscribe(t, h.newSubscriber(t, nil), h.topic("a"))
			handled := make(chan string, 1000)
			go func() { // ends with the subscription
				for msg := range messages {
					handled <- string(msg.Payload)
					msg.Ack()
				}
			}()
			if !before {
				look()
			}
			pub := h.newPublisher(t, nil)
			for range 10 {
				require.NoError(t, pub.Publish(h.topic("a"), newMessages(10)...))
			}
		})
	}
}

func TestGroup_DroppedIsMadeAnew(t *testing.T) {
	for name, declared := range map[string]map[string][]string{
		"declared": {"a": {"tests", "retired"}}, "not declared": nil,
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t, buffstreams.ManagerConfig{Acked: buffstreams.AckedConfig{WindowMessages: 32, Groups: declared}})
			sub := h.newSubscriber(t, nil)
			require.NoError(t, sub.DropGroup(h.topic("a"), "retired"))
			messages := subscribe(t, sub, h.topic("a"))
			pub := h.newPublisher(t, nil)
			require.NoError(t, pub.Publish(h.topic("a"), newMessage("x")), "nobody waits for what was dropped")
			require.Equal(t, []string{"x"}, receiveAcked(t, messages, 1))
			require.NoError(t, sub.DropGroup(h.topic("a"), "tests"))
			require.NoError(t, pub.Publish(h.topic("a"), newMessage("between")))
			again := subscribe(t, h.newSubscriber(t, nil), h.topic("a"))
			result := later(func() error {
				for range 10 {
					if err := pub.Publish(h.topic("a"), newMessages(10)...); err != nil {
						return err
					}
				}
				return nil
			})
			require.Equal(t, "between", receiveAcked(t, again, 101)[0])
			require.NoError(t, requireResult(t, result))
		})
	}
}

// Two handlers without a group restart, one after the other, with some messages handled by one of them, or by none. Each
// has had everything in the end.
func TestSubscription_TwoWithoutAGroupLoseNothingInARestart(t *testing.T) {
	h := newHouse(t, buffstreams.ManagerConfig{})
	pub := h.newPublisher(t, nil)
	type handler struct {
		sub      *buffstreams.Subscriber
		messages <-chan *message.Message
		had      map[string]bool
	}
	handlers := []*handler{{had: map[string]bool{}}, {had: map[string]bool{}}}
	start := func() {
		for _, one := range handlers {
			one.sub = h.newSubscriber(t, noGroup)
			one.messages = subscribe(t, one.sub, h.topic("a"))
		}
	}
	handle := func(one *handler, n int) {
		for _, payload := range receiveAcked(t, one.messages, n) {
			one.had[payload] = true
		}
	}
	start()
	require.NoError(t, pub.Publish(h.topic("a"), newMessages(100)...))
	handle(handlers[0], 10)
	handle(handlers[1], 60)
	for _, one := range handlers {
		require.NoError(t, one.sub.Close())
	}
	require.NoError(t, pub.Publish(h.topic("a"), newMessage("between")))
	start()
	require.NoError(t, pub.Publish(h.topic("a"), newMessage("last")))
	for _, one := range handlers {
		for !one.had["last"] {
			handle(one, 1)
		}
		require.Len(t, one.had, 102)
	}
}

// One member has lost its database and nacks everything. The other is idle.
func TestGroup_NackedMessageGoesToAnIdleMember(t *testing.T) {
	for _, inFlight := range []int{1, 4} {
		h := newHouse(t, buffstreams.ManagerConfig{})
		member := func(c *buffstreams.SubscriberConfig) { c.MaxInFlight = inFlight }
		broken := subscribe(t, h.newSubscriber(t, member), h.topic("a"))
		published := later(func() error { return h.newPublisher(t, nil).Publish(h.topic("a"), newMessages(20)...) })
		first := receive(t, broken)
		sound := subscribe(t, h.newSubscriber(t, member), h.topic("a"))
		var others sync.WaitGroup
		others.Go(func() { // Ends when the house does.
			first.Nack()
			for msg := range broken {
				msg.Nack()
			}
		})
		require.ElementsMatch(t, payloads(newMessages(20)), receiveAcked(t, sound, 20))
		require.NoError(t, requireResult(t, published))
		require.NoError(t, h.manager.Close())
		others.Wait()
	}
}

// deliveryLedger checks what the members of a group are given.
type deliveryLedger struct {
	t           *testing.T
	mu          sync.Mutex // guards the fields below
	acked, seen map[string]bool
}

func (l *deliveryLedger) countAcked() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.acked)
}

// take checks a delivery, where last is the last number that the subscription got for the first time, which it returns.
func (l *deliveryLedger) take(msg *message.Message, last int, ack bool) int {
	d, ok := buffstreams.DeliveryFromContext(msg.Context())
	payload := string(msg.Payload)
	n, _ := strconv.Atoi(payload)
	l.mu.Lock()
	defer l.mu.Unlock()
	if !ok || d.Attempt < 1 || d.Attempt > 1 && !d.Redelivered {
		l.t.Errorf("%s: %+v", payload, d)
	}
	if l.seen[payload] && !d.Redelivered {
		l.t.Errorf("%s comes back unmarked", payload)
	}
	if !d.Redelivered && n < last {
		l.t.Errorf("%d is given for the first time after %d", n, last)
	}
	if !d.Redelivered {
		last = n
	}
	l.seen[payload] = true
	if ack {
		l.acked[payload] = true
	}
	return last
}

// While members come and go, what a group is given for the first time ascends, and what comes back is marked.
func TestGroup_FirstDeliveriesAscendWhileMembersComeAndGo(t *testing.T) {
	const total, members = 600, 3
	h := newHouse(t, buffstreams.ManagerConfig{})
	require.NoError(t, h.newSubscriber(t, nil).SubscribeInitialize(h.topic("a")))
	pub := h.newPublisher(t, func(c *buffstreams.PublisherConfig) { c.Confirm = buffstreams.ConfirmEnqueued })
	for i := 0; i < total; i += 20 {
		require.NoError(t, pub.Publish(h.topic("a"), newMessages(total)[i:i+20]...))
	}
	ledger := &deliveryLedger{t: t, acked: map[string]bool{}, seen: map[string]bool{}}
	member := func(inFlight int) { // reads 40 messages, or for a while
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		sub := h.newSubscriber(t, func(c *buffstreams.SubscriberConfig) { c.MaxInFlight = inFlight })
		messages, err := sub.Subscribe(ctx, h.topic("a"))
		if err != nil {
			t.Error(err)
			return
		}
		last, count := -1, 0
		for msg := range messages {
			count++
			ack := count%5 > 0
			last = ledger.take(msg, last, ack)
			if ack {
				msg.Ack()
			} else {
				msg.Nack()
			}
			if count == 40 {
				cancel()
			}
		}
	}
	var all sync.WaitGroup
	for m := range members {
		all.Go(func() {
			for round := 0; ledger.countAcked() < total; round++ {
				member(1 + (m+round)%8)
			}
		})
	}
	all.Wait()
}

// A member that closes while its handler runs keeps no message from the others.
func TestGroup_MemberThatClosesKeepsNothing(t *testing.T) {
	h := newHouse(t, buffstreams.ManagerConfig{})
	slow := func(c *buffstreams.SubscriberConfig) { c.MaxInFlight, c.CloseTimeout = 4, patience }
	ctx, cancel := context.WithCancel(context.Background())
	closing, err := h.newSubscriber(t, slow).Subscribe(ctx, h.topic("a"))
	require.NoError(t, err)
	pub := h.newPublisher(t, nil)
	require.NoError(t, pub.Publish(h.topic("a"), newMessage("stuck")))
	stuck := receive(t, closing)
	other := subscribe(t, h.newSubscriber(t, nil), h.topic("a"))
	cancel()
	require.NoError(t, pub.Publish(h.topic("a"), newMessages(10)...))
	require.Equal(t, payloads(newMessages(10)), receiveAcked(t, other, 10))
	stuck.Ack()
	_, open := <-closing
	require.False(t, open)
}

// A group that is a whole window behind, or a key of it, holds up its topic. That is said, and nothing is dropped.
func TestGroup_ThatHoldsUpItsTopicIsLogged(t *testing.T) {
	const window = 64
	for name, c := range map[string]struct {
		of  func(*message.Message) string
		key any
	}{
		"group": {nil, nil},
		"key":   {func(m *message.Message) string { return "k" + m.Metadata.Get("key") }, `"kstuck"`},
	} {
		t.Run(name, func(t *testing.T) {
			log := testkit.NewLog()
			h := newHouse(t, buffstreams.ManagerConfig{Logger: log, Acked: buffstreams.AckedConfig{WindowMessages: window}})
			stuck := subscribe(t, h.newSubscriber(t, func(s *buffstreams.SubscriberConfig) {
				s.ConsumerGroup, s.Key, s.MaxInFlight = "stuck", c.of, 8
			}), h.topic("a"))
			alive := subscribe(t, h.newSubscriber(t, inGroup("alive")), h.topic("a"))
			msgs := newMessages(3 * window)
			for _, m := range msgs {
				m.Metadata.Set("key", "stuck")
			}
			published := later(func() error { return h.newPublisher(t, nil).Publish(h.topic("a"), msgs...) })
			others := later(func() error { receiveAcked(t, alive, 3*window); return nil })
			for said, late := false, time.After(patience); !said; {
				select {
				case line := <-log.Lines:
					said = line.Fields["consumer_group"] == "stuck" && line.Fields["key"] == c.key && line.Fields["topic"] == `"a"`
				case <-late:
					require.Fail(t, "nothing is said")
				}
			}
			for range 3 * window {
				receive(t, stuck).Ack()
			}
			require.NoError(t, requireResult(t, others))
			require.NoError(t, requireResult(t, published))
		})
	}
}

// Topics that come, are served, and are subscribed to no more are forgotten when their publishers are done.
func TestTopic_ThatNobodyUsesIsForgotten(t *testing.T) {
	ps, err := buffstreams.NewPubSub(buffstreams.PubSubConfig{Manager: buffstreams.ManagerConfig{
		Acked: buffstreams.AckedConfig{ForgetAfter: 50 * time.Millisecond, PingAfter: 100 * time.Millisecond},
	}}, nil)
	require.NoError(t, err)
	defer func() { require.NoError(t, ps.Close()) }()
	serve := func(from, to int) {
		for i := from; i < to; i++ {
			topic := fmt.Sprint("request-", i)
			ctx, cancel := context.WithCancel(context.Background())
			messages, err := ps.Subscribe(ctx, topic)
			require.NoError(t, err)
			require.NoError(t, ps.Publish(topic, newMessage("1")))
			receiveAcked(t, messages, 1)
			endSubscription(cancel, messages)
		}
	}
	live := func() uint64 {
		runtime.GC()
		runtime.GC()
		var s runtime.MemStats
		runtime.ReadMemStats(&s)
		return s.HeapAlloc
	}
	serve(0, 500)
	time.Sleep(2 * time.Second) // the time that the test is about: ForgetAfter, and some ticks
	before := live()
	serve(500, 2500)
	require.Eventually(t, func() bool { return int64(live())-int64(before) < 2000*100 }, patience, 100*time.Millisecond)
}
