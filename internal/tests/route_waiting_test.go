package tests

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/hooks"
	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
	"github.com/buffstreams/watermill-buffstreams/route"
)

// A message that was nacked and waits long for its next attempt has no handler: when its stream leaves the address it comes
// at the next one, unmarked, and holds up none that came later.
func TestRoute_WhatWaitsForItsNextAttemptMoves(t *testing.T) {
	const n = 5
	waiting := make(redelivered, n)
	var addresses []string
	var houses []*house
	for range 2 {
		h := newHouse(t, buffstreams.ManagerConfig{Hooks: []hooks.Hook{waiting}})
		h.subscriber.ListenAddress = h.address
		addresses, houses = append(addresses, h.address), append(houses, h)
	}
	patient := func(c *buffstreams.SubscriberConfig) { c.NackResendSleep, c.NackResendCap = time.Hour, time.Hour }
	messages := subscribe(t, houses[0].newSubscriber(t, patient), "orders")
	routed := func(address string) route.Route {
		return route.Route{Addresses: []string{address}, Policy: route.Hash, HashKey: "key"}
	}
	resolver := &watched{route: routed(addresses[0])}
	pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{
		Resolver: resolver, ManagerConfig: buffstreams.ManagerConfig{Acked: buffstreams.AckedConfig{MoveAfter: time.Hour}},
	}, nil)
	require.NoError(t, err)
	require.NoError(t, pub.Publish("orders", withKey("k", n)...))
	receive(t, messages).Nack()
	testkit.Receive(t, waiting)
	elsewhere := subscribe(t, houses[1].newSubscriber(t, nil), "orders")
	resolver.set(routed(addresses[1]))
	for range n {
		msg := receive(t, elsewhere)
		d, ok := buffstreams.DeliveryFromContext(msg.Context())
		require.True(t, ok && !d.MaybeDuplicate)
		msg.Ack()
	}
	require.NoError(t, pub.Close())
}
