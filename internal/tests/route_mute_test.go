package tests

import (
	"context"
	"fmt"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/hooks"
	"github.com/buffstreams/watermill-buffstreams/route"
)

// mutable is a connection that loses all that comes in while it is muted.
type mutable struct {
	net.Conn
	muted *atomic.Bool
}

func (c *mutable) Read(b []byte) (int, error) {
	for {
		n, err := c.Conn.Read(b)
		if err != nil || !c.muted.Load() {
			return n, err
		}
	}
}

// TestRoute_WhatWasNeverSentLeavesAnAddressThatAnswersNoMore long before that counts as silent: it waits for credit there, and costs
// nothing elsewhere.
func TestRoute_WhatWasNeverSentLeavesAnAddressThatAnswersNoMore(t *testing.T) {
	t.Parallel()
	for _, policy := range []route.Policy{route.RoundRobin, route.LeastPending} {
		t.Run(fmt.Sprint(policy), func(t *testing.T) {
			t.Parallel()
			addresses := []string{freeAddress(t), freeAddress(t)}
			first, second := counting(t, addresses[0]), counting(t, addresses[1])
			var muted atomic.Bool
			pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{
				Resolver: route.Static{"*": {Addresses: addresses, Policy: policy}}, Confirm: buffstreams.ConfirmReceived,
				ManagerConfig: buffstreams.ManagerConfig{
					Acked: quick(buffstreams.AckedConfig{MoveAfter: time.Hour}),
					Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
						var d net.Dialer
						conn, err := d.DialContext(ctx, network, address)
						if address != addresses[0] {
							return conn, err
						}
						return &mutable{conn, &muted}, err
					},
				},
				CloseTimeout: time.Second,
			}, nil)
			require.NoError(t, err)
			t.Cleanup(func() { _ = pub.Close() })
			connected := later(func() error { return pub.Publish("connects", newMessage("x")) }) // and is never received
			require.Eventually(t, func() bool {
				time.Sleep(time.Until(pub.Stats().At.Add(1100 * time.Millisecond)))
				all := pub.Stats().Addresses
				return len(all) == 2 && all[0].State == "ready" && all[1].State == "ready"
			}, patience, time.Millisecond)
			muted.Store(true)
			const n = 20
			var calls []<-chan error
			for range n {
				calls = append(calls, later(func() error { return pub.Publish("orders", newMessage("x")) }))
			}
			for _, call := range calls {
				require.NoError(t, requireResult(t, call))
			}
			require.Eventually(t, func() bool { return second.Load() == n }, patience, time.Millisecond) // handled soon after received
			require.Zero(t, first.Load())
			time.Sleep(time.Until(pub.Stats().At.Add(1100 * time.Millisecond)))
			for _, a := range pub.Stats().Addresses {
				require.Equal(t, "ready", a.State, "%s: it took longer than the connection lasts", a.Address)
			}
			_ = pub.Close()
			require.Error(t, requireResult(t, connected))
		})
	}
}

// moveCount counts the moves of streams.
type moveCount struct{ atomic.Int64 }

func (c *moveCount) OnMoved(hooks.Moved) { c.Add(1) }

// TestRoute_WhatWasNeverSentLeavesAddressesWithoutSubscriptions: they are connected and give no credit, more than half of them, as a process
// does that has just begun. They are tried again now and then.
func TestRoute_WhatWasNeverSentLeavesAddressesWithoutSubscriptions(t *testing.T) {
	for _, policy := range []route.Policy{route.RoundRobin, route.LeastPending} {
		t.Run(fmt.Sprint(policy), func(t *testing.T) {
			addresses := []string{freeAddress(t), freeAddress(t), freeAddress(t)}
			for _, address := range addresses[1:] {
				sub, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{
					ListenAddress: address, ConsumerGroup: "present",
					ManagerConfig: buffstreams.ManagerConfig{Acked: buffstreams.AckedConfig{Groups: map[string][]string{"orders": {"present", "late"}}}},
				}, nil)
				require.NoError(t, err)
				t.Cleanup(func() { _ = sub.Close() })
				require.NoError(t, sub.SubscribeInitialize("orders"))
			}
			handled, moves := counting(t, addresses[0]), &moveCount{}
			pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{
				Resolver: route.Static{"*": {Addresses: addresses, Policy: policy}}, PublishTimeout: 2 * patience,
				ManagerConfig: buffstreams.ManagerConfig{Hooks: []hooks.Hook{moves}},
			}, nil)
			require.NoError(t, err)
			t.Cleanup(func() { _ = pub.Close() })
			const n = 20
			var calls []<-chan error
			for range n {
				calls = append(calls, later(func() error { return pub.Publish("orders", newMessage("x")) }))
			}
			for _, call := range calls {
				require.NoError(t, requireResult(t, call))
			}
			first, began := moves.Load(), time.Now()
			for range 2 * n {
				require.NoError(t, requireResult(t, later(func() error { return pub.Publish("orders", newMessage("x")) })))
			}
			require.Eventually(t, func() bool { return handled.Load() == 3*n }, patience, time.Millisecond) // handled soon after received
			require.LessOrEqual(t, moves.Load()-first, 4+int64(time.Since(began)/time.Second), "they are not tried with every call")
		})
	}
}
