package tests

import (
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/hooks"
	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
)

// redelivered is a hook that hears of each message that waits for its next attempt.
type redelivered chan struct{}

func (r redelivered) OnRedelivered(hooks.Redelivered) {
	select {
	case r <- struct{}{}:
	default:
	}
}

// A group is dropped while its member has messages that no handler has. They wait for it no more.
func TestGroup_DroppedGivesBackWhatItsMembersHave(t *testing.T) {
	const n = 20
	for name, c := range map[string]struct {
		change func(*buffstreams.SubscriberConfig)
		handle func(t *testing.T, messages <-chan *message.Message, waiting <-chan struct{})
	}{
		"not read": {func(c *buffstreams.SubscriberConfig) { c.MaxInFlight = 8 }, func(t *testing.T, messages <-chan *message.Message, _ <-chan struct{}) {
			require.Eventually(t, func() bool { return len(messages) == 8 }, patience, time.Millisecond)
		}},
		"nacked without end": {nil, func(t *testing.T, messages <-chan *message.Message, _ <-chan struct{}) {
			for range 3 {
				receive(t, messages).Nack()
			}
			go func() { // ends with the subscription
				for msg := range messages {
					msg.Nack()
				}
			}()
		}},
		"waiting for their next attempt": {func(c *buffstreams.SubscriberConfig) {
			c.MaxInFlight, c.NackResendSleep, c.NackResendCap = 8, time.Hour, time.Hour
		}, func(t *testing.T, messages <-chan *message.Message, waiting <-chan struct{}) {
			for range 8 {
				receive(t, messages).Nack()
			}
			for range 8 {
				testkit.Receive(t, waiting)
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			waiting := make(redelivered, 8)
			h := newHouse(t, buffstreams.ManagerConfig{Hooks: []hooks.Hook{waiting}})
			stays := subscribe(t, h.newSubscriber(t, inGroup("stays")), h.topic("a"))
			sub := h.newSubscriber(t, func(cfg *buffstreams.SubscriberConfig) {
				if cfg.ConsumerGroup = "retired"; c.change != nil {
					c.change(cfg)
				}
			})
			retired := subscribe(t, sub, h.topic("a"))
			pub := h.newPublisher(t, func(c *buffstreams.PublisherConfig) { c.Confirm = buffstreams.ConfirmHandled })
			published := later(func() error { return pub.Publish(h.topic("a"), newMessages(n)...) })
			receiveAcked(t, stays, n)
			c.handle(t, retired, waiting)
			require.NoError(t, sub.DropGroup(h.topic("a"), "retired"))
			require.NoError(t, requireResult(t, published))
		})
	}
}
