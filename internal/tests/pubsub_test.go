package tests

import (
	"fmt"
	"testing"

	"github.com/ThreeDotsLabs/watermill/pubsub/tests"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
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

// bothWays runs f as the suite is to be run: duplicates tolerated, and not.
func bothWays(t *testing.T, f func(t *testing.T, exactlyOnce bool)) {
	for _, exactlyOnce := range []bool{false, true} {
		t.Run(fmt.Sprintf("ExactlyOnceDelivery=%v", exactlyOnce), func(t *testing.T) { f(t, exactlyOnce) })
	}
}

// TestPubSub is Watermill's universal suite, over TCP. All its subscribers share one Manager, as an application's do.
func TestPubSub(t *testing.T) {
	bothWays(t, func(t *testing.T, exactlyOnce bool) {
		h := newHouse(t, buffstreams.ManagerConfig{})
		tests.TestPubSub(t, features(h, exactlyOnce), h.pubSub, h.groupPubSub)
	})
}
