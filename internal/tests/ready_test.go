package tests

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
)

// A process restarts with two groups, one of which comes back late. Nothing is declared, and it misses nothing.
func TestReady_HoldsMessagesBackForTheGroupThatIsLate(t *testing.T) {
	for name, of := range map[string]func(m *buffstreams.ManagerConfig, s *buffstreams.SubscriberConfig, ready chan struct{}){
		"Manager": func(m *buffstreams.ManagerConfig, _ *buffstreams.SubscriberConfig, ready chan struct{}) {
			m.Ready = ready
		},
		"Subscriber": func(_ *buffstreams.ManagerConfig, s *buffstreams.SubscriberConfig, ready chan struct{}) {
			s.Ready = ready
		},
	} {
		t.Run(name, func(t *testing.T) {
			topic := freeAddress(t) + "/a"
			pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{
				ManagerConfig: buffstreams.ManagerConfig{Acked: quick(buffstreams.AckedConfig{})},
			}, nil)
			require.NoError(t, err)
			ready := make(chan struct{})
			var mcfg buffstreams.ManagerConfig
			var scfg buffstreams.SubscriberConfig
			of(&mcfg, &scfg, ready)
			manager, err := buffstreams.NewManager(mcfg)
			require.NoError(t, err)
			scfg.Manager = manager
			group := func(name string, changed buffstreams.SubscriberConfig) <-chan *message.Message {
				changed.ConsumerGroup = name
				sub, err := buffstreams.NewSubscriber(changed, nil)
				require.NoError(t, err)
				return subscribe(t, sub, topic)
			}
			published := later(func() error { return pub.Publish(topic, newMessages(50)...) })
			prompt := group("prompt", scfg)
			select {
			case <-prompt:
				require.Fail(t, "a message came before all were ready")
			case <-published:
				require.Fail(t, "Publish returned before all were ready")
			case <-time.After(200 * time.Millisecond):
			}
			late, single := group("late", scfg), group("", scfg)
			close(ready)
			for _, messages := range []<-chan *message.Message{prompt, late, single} {
				require.Equal(t, payloads(newMessages(50)), receiveAcked(t, messages, 50))
			}
			require.NoError(t, requireResult(t, published))
			require.NoError(t, pub.Close())
			require.NoError(t, manager.Close())
		})
	}
}

// A Subscriber that is closed holds nobody back, and neither does a Manager that was never ready when it closes.
func TestReady_EndsWithItsOwner(t *testing.T) {
	h := newHouse(t, buffstreams.ManagerConfig{})
	never := func(c *buffstreams.SubscriberConfig) { c.Ready = make(chan struct{}) }
	one, two := h.newSubscriber(t, never), h.newSubscriber(t, never)
	messages := subscribe(t, h.newSubscriber(t, nil), h.topic("a"))
	published := later(func() error { return h.newPublisher(t, nil).Publish(h.topic("a"), newMessage("x")) })
	require.NoError(t, one.Close())
	select {
	case <-messages:
		require.Fail(t, "another one is not ready")
	case <-time.After(100 * time.Millisecond):
	}
	require.NoError(t, two.Close())
	require.Equal(t, []string{"x"}, receiveAcked(t, messages, 1))
	require.NoError(t, requireResult(t, published))
}

// A Subscriber that is not ready holds back the topics of a listener that was there before it, but for those that are open.
func TestReady_HoldsBackWhereOthersListenAlready(t *testing.T) {
	h := newHouse(t, buffstreams.ManagerConfig{})
	pub := h.newPublisher(t, nil)
	open := subscribe(t, h.newSubscriber(t, nil), h.topic("open"))
	ready := make(chan struct{})
	h.newSubscriber(t, func(c *buffstreams.SubscriberConfig) { c.Ready = ready })
	held := subscribe(t, h.newSubscriber(t, nil), h.topic("held"))
	published := later(func() error { return pub.Publish(h.topic("held"), newMessage("x")) })
	opened := later(func() error { return pub.Publish(h.topic("open"), newMessage("y")) })
	require.Equal(t, []string{"y"}, receiveAcked(t, open, 1))
	require.NoError(t, requireResult(t, opened))
	select {
	case <-held:
		require.Fail(t, "a Subscriber is not ready")
	case <-time.After(200 * time.Millisecond):
	}
	close(ready)
	require.Equal(t, []string{"x"}, receiveAcked(t, held, 1))
	require.NoError(t, requireResult(t, published))
}

// Ready with a Router: its handlers, each with a group of its own, have all subscribed when it closes.
func TestReady_RouterRunning(t *testing.T) {
	topic := freeAddress(t) + "/a"
	pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{
		ManagerConfig: buffstreams.ManagerConfig{Acked: quick(buffstreams.AckedConfig{})},
	}, nil)
	require.NoError(t, err)
	published := later(func() error { return pub.Publish(topic, newMessages(20)...) })
	router, err := message.NewRouter(message.RouterConfig{}, nil)
	require.NoError(t, err)
	manager, err := buffstreams.NewManager(buffstreams.ManagerConfig{Ready: router.Running()})
	require.NoError(t, err)
	var handled [10]atomic.Int64
	for i := range handled {
		sub, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{Manager: manager, ConsumerGroup: fmt.Sprint(i)}, nil)
		require.NoError(t, err)
		router.AddConsumerHandler(fmt.Sprint(i), topic, sub, func(*message.Message) error { handled[i].Add(1); return nil })
	}
	ended := later(func() error { return router.Run(context.Background()) })
	require.NoError(t, requireResult(t, published))
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	require.NoError(t, pub.Drain(ctx))
	require.NoError(t, router.Close())
	require.NoError(t, requireResult(t, ended))
	require.NoError(t, pub.Close())
	require.NoError(t, manager.Close())
	for i := range handled {
		require.EqualValues(t, 20, handled[i].Load(), "handler %d", i)
	}
}
