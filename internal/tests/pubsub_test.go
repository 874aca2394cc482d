package tests

import (
	"fmt"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/pubsub/tests"

	"github.com/buffstreams/watermill-buffstreams/pool"
)

// features are what the transport really has.
func features(h *house, exactlyOnce bool) tests.Features {
	return tests.Features{
		ConsumerGroups:                      true,
		ExactlyOnceDelivery:                 exactlyOnce,
		GuaranteedOrder:                     true,
		GuaranteedOrderWithSingleSubscriber: true,
		GenerateTopicFunc:                   h.generateTopic,
	}
}

// TestPubSub is Watermill's universal suite, over TCP. All its subscribers share one Manager, as an application's do.
func TestPubSub(t *testing.T) {
	for _, exactlyOnce := range []bool{false, true} {
		t.Run(fmt.Sprintf("ExactlyOnceDelivery=%v", exactlyOnce), func(t *testing.T) {
			h := newHouse(t, pool.ManagerConfig{})
			tests.TestPubSub(t, features(h, exactlyOnce), h.pubSub,
				func(t *testing.T, group string) (message.Publisher, message.Subscriber) {
					return h.groupPubSub(t, group)
				})
		})
	}
}
