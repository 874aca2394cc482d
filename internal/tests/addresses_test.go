package tests

import (
	"context"
	"net"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
)

// senders is the number of goroutines that keep a connection.
func senders() int {
	stacks := make([]byte, 4<<20)
	return strings.Count(string(stacks[:runtime.Stack(stacks, true)]), "internal/acked/sender.(*Sender).run(")
}

// TestManager_AddressesThatAreGoneLeaveNoGoroutine: nothing is left to deliver to them. One that comes back gets its messages.
func TestManager_AddressesThatAreGoneLeaveNoGoroutine(t *testing.T) {
	before, dials := senders(), new(atomic.Int64)
	cfg := buffstreams.ManagerConfig{Acked: quick(buffstreams.AckedConfig{})}
	cfg.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		dials.Add(1)
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}
	pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{Confirm: buffstreams.ConfirmHandled, ManagerConfig: cfg}, nil)
	require.NoError(t, err)
	defer func() { require.NoError(t, pub.Close()) }()
	visit := func(topic string) {
		sub, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{ConsumerGroup: "g"}, nil)
		require.NoError(t, err)
		messages := subscribe(t, sub, topic)
		published := later(func() error { return pub.Publish(topic, newMessages(1)...) })
		receive(t, messages).Ack()
		require.NoError(t, requireResult(t, published))
		require.NoError(t, sub.Close())
	}
	var topics []string
	for range 10 {
		topics = append(topics, freeAddress(t)+"/a")
		visit(topics[len(topics)-1])
	}
	quiet := func() bool { // none is dialed any more: the longest pause is 20 ms
		n := dials.Load()
		time.Sleep(200 * time.Millisecond)
		return senders() == before && dials.Load() == n
	}
	require.Eventually(t, quiet, patience, 10*time.Millisecond)
	visit(topics[0])
	require.Eventually(t, quiet, patience, 10*time.Millisecond)
}

// TestManager_AddressesThatAreAwayWaitWithoutAGoroutine: messages wait for each, and nothing but a timer until it is
// dialed again. Close waits for none of them.
func TestManager_AddressesThatAreAwayWaitWithoutAGoroutine(t *testing.T) {
	const addresses = 50
	before := senders()
	cfg := buffstreams.AckedConfig{Reconnect: &buffstreams.ReconnectConfig{InitialInterval: time.Hour, MaxInterval: time.Hour}}
	pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{
		Confirm: buffstreams.ConfirmEnqueued, CloseTimeout: 50 * time.Millisecond, ManagerConfig: buffstreams.ManagerConfig{Acked: cfg},
	}, nil)
	require.NoError(t, err)
	for range addresses {
		require.NoError(t, pub.Publish(freeAddress(t)+"/a", newMessages(1)...))
	}
	require.Eventually(t, func() bool { return senders() == before }, patience, 10*time.Millisecond)
	err = pub.Close()
	var left *buffstreams.UndeliveredError
	require.ErrorAs(t, err, &left)
	require.Equal(t, addresses, left.Count)
	require.Equal(t, before, senders())
}
