package tests

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/route"
)

// briefly is a Resolver whose Watch ends when it is told to.
type briefly struct {
	watched
	end chan struct{}
}

func (b *briefly) Watch(_ context.Context, _ string, update func(route.Route)) error {
	update(b.route)
	<-b.end
	return errors.New("the connection to what knows is lost")
}

// TestRoute_IsAskedWhereItIsWatchedNoMore: when an address fails, what the Resolver says then counts.
func TestRoute_IsAskedWhereItIsWatchedNoMore(t *testing.T) {
	t.Parallel()
	first, second := freeAddress(t), freeAddress(t)
	sub, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{ListenAddress: first}, nil)
	require.NoError(t, err)
	messages := subscribe(t, sub, "orders")
	b := &briefly{watched: watched{route: route.Route{Addresses: []string{first}}}, end: make(chan struct{})}
	pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{
		Resolver: b, Confirm: buffstreams.ConfirmHandled, PublishTimeout: patience,
		ManagerConfig: buffstreams.ManagerConfig{Acked: quick(buffstreams.AckedConfig{})},
	}, nil)
	require.NoError(t, err)
	defer func() { require.NoError(t, pub.Close()) }()
	published := later(func() error { return pub.Publish("orders", newMessage("x")) })
	receive(t, messages).Ack()
	require.NoError(t, requireResult(t, published))

	got := counting(t, second)
	close(b.end)
	b.set(route.Route{Addresses: []string{second}})
	require.NoError(t, sub.Close())
	require.NoError(t, pub.Publish("orders", newMessage("y")))
	require.EqualValues(t, 1, got.Load())
}

// TestRoute_ACallThatWaitsSeesAnotherRoute whose address is there already, as another topic has it: nothing else changes.
func TestRoute_ACallThatWaitsSeesAnotherRoute(t *testing.T) {
	t.Parallel()
	dead, home := freeAddress(t), freeAddress(t)
	got := counting(t, home)
	w := &watched{route: route.Route{Addresses: []string{dead}, Policy: route.RoundRobin}}
	m, err := buffstreams.NewManager(buffstreams.ManagerConfig{Acked: quick(buffstreams.AckedConfig{})})
	require.NoError(t, err)
	defer func() { require.NoError(t, m.Close()) }()
	one, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{Manager: m, Confirm: buffstreams.ConfirmHandled}, nil)
	require.NoError(t, err)
	defer func() { require.NoError(t, one.Close()) }()
	require.NoError(t, one.Publish(home+"/orders", newMessage("x")))
	other, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{Manager: m, Resolver: w, Confirm: buffstreams.ConfirmHandled, PublishTimeout: patience}, nil)
	require.NoError(t, err)
	defer func() { require.NoError(t, other.Close()) }()
	published := later(func() error { return other.Publish("orders", newMessage("y")) })
	require.Eventually(t, func() bool {
		all := other.Stats().Addresses
		return len(all) == 1 && all[0].State == "gone"
	}, patience, 50*time.Millisecond)
	w.set(route.Route{Addresses: []string{home}, Policy: route.RoundRobin})
	require.NoError(t, requireResult(t, published))
	require.EqualValues(t, 2, got.Load())
}

// TestRoute_OneAddressThatRefusesForGood leaves the others time to come.
func TestRoute_OneAddressThatRefusesForGood(t *testing.T) {
	refusing, away := freeAddress(t), freeAddress(t)
	var asked atomic.Int64
	pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{
		Resolver: route.Static{"orders": {Addresses: []string{refusing, away}, Policy: route.RoundRobin}}, PublishTimeout: patience,
		ManagerConfig: buffstreams.ManagerConfig{
			Acked: quick(buffstreams.AckedConfig{}),
			Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
				if address == refusing {
					asked.Add(1)
					return nil, &tls.CertificateVerificationError{Err: errors.New("it is for another host")}
				}
				return (&net.Dialer{}).DialContext(ctx, network, address)
			},
		},
	}, nil)
	require.NoError(t, err)
	defer func() { require.NoError(t, pub.Close()) }()
	published := []<-chan error{
		later(func() error { return pub.Publish("orders", newMessage("x")) }),
		later(func() error { return pub.Publish("orders", newMessage("y")) }),
	}
	require.Eventually(t, func() bool { return asked.Load() > 1 }, patience, time.Millisecond)
	got := counting(t, away)
	for _, p := range published {
		require.NoError(t, requireResult(t, p))
	}
	require.Eventually(t, func() bool { return got.Load() == 2 }, patience, time.Millisecond)
}

// TestRoute_AnAddressThatLeftIsForgotten, however messages came there.
func TestRoute_AnAddressThatLeftIsForgotten(t *testing.T) {
	for name, p := range map[string]route.Policy{
		"RoundRobin": route.RoundRobin, "LeastPending": route.LeastPending, "Failover": route.Failover, "Hash": route.Hash, "All": route.All,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			first, second := freeAddress(t), freeAddress(t)
			counting(t, first)
			got := counting(t, second)
			pub, w := changing(t, route.Route{Addresses: []string{second, first}, Policy: p, HashKey: "k"}, buffstreams.ConfirmHandled)
			for i := range 64 {
				m := newMessage("x")
				m.Metadata.Set("k", fmt.Sprint(i))
				require.NoError(t, pub.Publish("orders", m))
			}
			require.Positive(t, got.Load())
			w.set(route.Route{Addresses: []string{first}, Policy: p, HashKey: "k"})
			requireForgotten(t, pub, second)
		})
	}
}

// requireForgotten waits until an address is none of a publisher's.
func requireForgotten(t *testing.T, pub *buffstreams.Publisher, address string) {
	t.Helper()
	require.Eventually(t, func() bool {
		all := pub.Stats().Addresses
		for i := range all {
			if all[i].Address == address {
				return false
			}
		}
		return true
	}, patience, 50*time.Millisecond, "it is kept for nothing")
}

// TestRoute_AnAddressThatTookSharesIsForgotten when it leaves the route in its turn.
func TestRoute_AnAddressThatTookSharesIsForgotten(t *testing.T) {
	t.Parallel()
	first, second, third := freeAddress(t), freeAddress(t), freeAddress(t)
	sub, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{
		ListenAddress: first, CloseTimeout: patience, ConsumerGroup: "g",
		ManagerConfig: buffstreams.ManagerConfig{Acked: buffstreams.AckedConfig{WindowMessages: handedOver}},
	}, nil)
	require.NoError(t, err)
	held := subscribe(t, sub, "orders")
	pub, w := changing(t, route.Route{Addresses: []string{first, second}}, buffstreams.ConfirmEnqueued)
	require.NoError(t, pub.Publish("orders", newMessages(keeps)...))
	busy := receive(t, held)
	got := counting(t, second)
	require.Eventually(t, func() bool {
		all := pub.Stats().Addresses
		return all[0].State == "ready" && all[1].State == "ready"
	}, patience, 50*time.Millisecond)
	closed := later(sub.Close)
	require.Eventually(t, func() bool { return got.Load() == keeps-handedOver }, patience, time.Millisecond)
	busy.Ack()
	for m := range held {
		m.Ack()
	}
	require.NoError(t, requireResult(t, closed))
	require.NoError(t, pub.Drain(t.Context()))
	counting(t, third)
	w.set(route.Route{Addresses: []string{third}})
	requireForgotten(t, pub, second)
}

// TestRoute_WhatWaitsInAChannelIsTakenBackAlone: the messages of other publishers beside it stay, and their acks count.
func TestRoute_WhatWaitsInAChannelIsTakenBackAlone(t *testing.T) {
	first, second := freeAddress(t), freeAddress(t)
	sub, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{
		ListenAddress: first, ConsumerGroup: "g", MaxInFlight: 10, CloseTimeout: time.Second,
	}, nil)
	require.NoError(t, err)
	t.Cleanup(func() { _ = sub.Close() })
	messages := subscribe(t, sub, "orders")
	moving, w := changing(t, route.Route{Addresses: []string{first}}, buffstreams.ConfirmReceived)
	staying, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{Confirm: buffstreams.ConfirmReceived}, nil)
	require.NoError(t, err)
	for range 3 { // in turn
		require.NoError(t, moving.Publish("orders", newMessage("moves")))
		require.NoError(t, staying.Publish(first+"/orders", newMessage("stays")))
	}
	require.Eventually(t, func() bool { return len(messages) == 6 }, patience, time.Millisecond)
	got := counting(t, second)
	w.set(route.Route{Addresses: []string{second}})
	require.Eventually(t, func() bool { return got.Load() == 3 }, patience, time.Millisecond)
	for range 3 {
		m := receive(t, messages)
		require.Equal(t, "stays", string(m.Payload))
		m.Ack()
	}
	require.NoError(t, staying.Drain(t.Context()))
	require.NoError(t, staying.Close())
}
