//go:build stress

package tests

import (
	"testing"

	"github.com/ThreeDotsLabs/watermill/pubsub/tests"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
)

// TestPubSub_Stress runs the universal suite many times side by side: STRESS_TEST_COUNT, 10 by default.
func TestPubSub_Stress(t *testing.T) {
	bothWays(t, func(t *testing.T, exactlyOnce bool) {
		h := newHouse(t, buffstreams.ManagerConfig{})
		tests.TestPubSubStressTest(t, features(h, exactlyOnce), h.pubSub, h.groupPubSub)
	})
}
