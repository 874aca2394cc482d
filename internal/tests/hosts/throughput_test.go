package hosts

import (
	"context"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/route"
)

// throughput is how many messages are handled for each second of processor time, of both ends, that several callers publish one
// by one as fast as they can, over all addresses of a route. Processor time, as other work on the machine would count otherwise.
func throughput(t *testing.T, r route.Route, resolver route.Resolver, addresses []string) float64 {
	var handled atomic.Int64
	each := make([]atomic.Int64, len(addresses))
	var subs []*buffstreams.Subscriber
	defer func() {
		for _, sub := range subs {
			_ = sub.Close()
		}
	}()
	for i, address := range addresses {
		sub, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{ListenAddress: address, MaxInFlight: 256, ConsumerGroup: "g"}, nil)
		require.NoError(t, err)
		subs = append(subs, sub)
		messages, err := sub.Subscribe(context.Background(), "orders")
		require.NoError(t, err)
		go func() { // ends with the subscription
			for m := range messages {
				handled.Add(1)
				each[i].Add(1)
				m.Ack()
			}
		}()
	}
	if resolver == nil {
		resolver = route.Static{"orders": r}
	}
	pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{Resolver: resolver}, nil)
	require.NoError(t, err)
	defer func() { _ = pub.Close() }()
	stop := make(chan struct{})
	var publishing sync.WaitGroup
	payload := make([]byte, 100)
	for range 256 {
		publishing.Go(func() { // ends with stop
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := pub.Publish("orders", message.NewMessage("1", payload)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	time.Sleep(500 * time.Millisecond)
	before, began := handled.Load(), processorTime(t)
	time.Sleep(2 * time.Second)
	figure := float64(handled.Load()-before) / (processorTime(t) - began).Seconds()
	close(stop)
	publishing.Wait()
	if r.Policy == route.RoundRobin {
		share := float64(handled.Load()) / float64(len(each))
		for i := range each { // what some calls do together, and what is on its way, besides
			require.InDelta(t, share, float64(each[i].Load()), 0.01*share+256, "address %d", i)
		}
	}
	return figure
}

// processorTime is what this process has taken.
func processorTime(t *testing.T) time.Duration {
	var r syscall.Rusage
	require.NoError(t, syscall.Getrusage(syscall.RUSAGE_SELF, &r))
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// TestHosts_ThroughputOfThree against one address, in turn.
func TestHosts_ThroughputOfThree(t *testing.T) {
	n := runs(t)
	for _, policy := range []string{"RoundRobin", "LeastPending"} {
		var ratios, single []float64
		for range n {
			three := addresses(t, 3)
			one := throughput(t, route.Route{Addresses: three[:1]}, nil, three[:1])
			routed := throughput(t, route.Route{}, route.Func(func(context.Context, string) (route.Route, error) {
				return route.Route{Addresses: three[:1], Policy: policies[policy]}, nil
			}), three[:1])
			all := throughput(t, route.Route{Addresses: three, Policy: policies[policy]}, nil, three)
			t.Logf("%s: one %.0f/s, one by a Resolver %.0f/s, three %.0f/s", policy, one, routed, all)
			ratios, single = append(ratios, all/one), append(single, routed/one)
		}
		t.Logf("%s: three against one %.2f, a route of one against one %.2f (medians)", policy, median(ratios), median(single))
		require.GreaterOrEqual(t, median(ratios), 0.8) // 0.9 is wished for, and reached on a quiet machine
	}
}
