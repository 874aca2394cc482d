package tests

import (
	"fmt"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/route"
)

// serving listens at an address with subscriptions of some groups that ack everything, and returns its end.
func serving(t *testing.T, address string, groups ...string) (end func()) {
	m, err := buffstreams.NewManager(buffstreams.ManagerConfig{
		Acked: buffstreams.AckedConfig{Groups: map[string][]string{"orders": groups}}, // it says them all from the first Open on
	})
	require.NoError(t, err)
	for _, group := range groups {
		sub, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{
			Manager: m, ListenAddress: address, ConsumerGroup: group,
		}, nil)
		require.NoError(t, err)
		messages := subscribe(t, sub, "orders")
		go func() { // ends with the Manager
			for msg := range messages {
				msg.Ack()
			}
		}()
	}
	end = func() { _ = m.Close() }
	t.Cleanup(end)
	return end
}

// TestRoute_AddressesWithDifferentGroups are logged once, and shown while they differ.
func TestRoute_AddressesWithDifferentGroups(t *testing.T) {
	t.Parallel()
	for name, policy := range map[string]route.Policy{"RoundRobin": route.RoundRobin, "Hash": route.Hash} {
		t.Run(name, func(t *testing.T) {
			first, second := freeAddress(t), freeAddress(t)
			serving(t, first, "audit", "billing")
			end := serving(t, second, "billing")
			logger := watermill.NewCaptureLogger()
			pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{
				Resolver: route.Static{"orders": {Addresses: []string{first, second}, Policy: policy, HashKey: "k"}},
				Confirm:  buffstreams.ConfirmHandled, ManagerConfig: buffstreams.ManagerConfig{Acked: quick(buffstreams.AckedConfig{})},
			}, logger)
			require.NoError(t, err)
			defer func() { require.NoError(t, pub.Close()) }()
			lines := func(level watermill.LogLevel, text string) (n int) {
				for _, l := range logger.Captured()[level] {
					if l.Msg == text {
						require.Equal(t, level == watermill.ErrorLogLevel, l.Fields["digests"] != nil)
						n++
					}
				}
				return n
			}
			const differ, same = "Addresses of a route have different consumer groups", "The addresses of a route have the same consumer groups again"
			differs := func() bool {
				for i := range 64 { // so many that both addresses have some
					msg := newMessage("x")
					msg.Metadata.Set("k", fmt.Sprint(i))
					require.NoError(t, pub.Publish("orders", msg))
				}
				return pub.Stats().Topics[0].GroupsDiffer
			}
			require.Eventually(t, func() bool { // a result is kept for a second: it can be older than the last streams
				if !differs() {
					return false
				}
				digests := map[string]bool{}
				for _, a := range pub.Stats().Addresses {
					for _, s := range a.Streams {
						digests[s.Groups] = true
					}
				}
				return len(digests) == 2
			}, patience, 50*time.Millisecond)

			end()
			serving(t, second, "audit", "billing")
			require.Eventually(t, func() bool { return !differs() }, patience, 20*time.Millisecond)
			require.Equal(t, 1, lines(watermill.ErrorLogLevel, differ), "once for each change")
			require.Equal(t, 1, lines(watermill.InfoLogLevel, same))
		})
	}
}
