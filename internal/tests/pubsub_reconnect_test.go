//go:build !race

package tests

import (
	"testing"

	"github.com/ThreeDotsLabs/watermill/pubsub/tests"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
)

// TestPubSub_Reconnect is the universal suite with a network that its TestReconnect cuts twice.
//
// It is not run under the race detector: the upstream test appends to publishedMessages in one goroutine and reads it in
// another. It also compares that list as soon as the last message was received, though publishers report a message only
// after Publish returned: a message must not overtake its own report. At ConfirmEnqueued, Publish returns before the
// message leaves, and the network takes far longer than a report.
func TestPubSub_Reconnect(t *testing.T) {
	bothWays(t, func(t *testing.T, exactlyOnce bool) {
		n := outage(t)
		h := newHouse(t, buffstreams.ManagerConfig{Dial: n.dial})
		h.publisher.Confirm = buffstreams.ConfirmEnqueued
		f := features(h, exactlyOnce)
		f.RestartServiceCommand = n.command()
		tests.TestPubSub(t, f, h.pubSub, h.groupPubSub)
	})
}

// TestPubSub_OutboxReconnect is the same with an outbox: Publish returns when a message is on disk, which again is
// before it leaves. With this every feature that a transport can honestly have is on.
func TestPubSub_OutboxReconnect(t *testing.T) {
	bothWays(t, func(t *testing.T, exactlyOnce bool) {
		n := outage(t)
		h, features := persistentHouse(t, buffstreams.ManagerConfig{Dial: n.dial})
		f := features(exactlyOnce)
		f.RestartServiceCommand = n.command()
		tests.TestPubSub(t, f, h.pubSub, h.groupPubSub)
	})
}
