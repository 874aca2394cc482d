package tests

import (
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/pubsub/tests"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
)

// persistentHouse is a house whose publishers share an outbox.
func persistentHouse(t *testing.T, cfg buffstreams.ManagerConfig) (*house, func(exactlyOnce bool) tests.Features) {
	h := newHouse(t, cfg)
	h.publisher.Outbox = openOutbox(t, t.TempDir())
	return h, func(exactlyOnce bool) tests.Features {
		f := features(h, exactlyOnce)
		f.Persistent = true
		return f
	}
}

// TestPubSub_Outbox is the universal suite with everything on: messages are kept in an outbox until they were handled.
func TestPubSub_Outbox(t *testing.T) {
	bothWays(t, func(t *testing.T, exactlyOnce bool) {
		h, features := persistentHouse(t, buffstreams.ManagerConfig{})
		tests.TestPubSub(t, features(exactlyOnce), h.pubSub, h.groupPubSub)
	})
}

// outage is how the network of a suite is cut: every byte takes 50 ms to cross it, and it is away for a second.
func outage(t *testing.T) *network { return newNetwork(t, 50*time.Millisecond, time.Second) }
