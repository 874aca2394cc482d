package tests

import (
	"runtime"
	"strings"
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
	before := senders()
	pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{
		Confirm: buffstreams.ConfirmHandled, ManagerConfig: buffstreams.ManagerConfig{Acked: quick(buffstreams.AckedConfig{})},
	}, nil)
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
	require.Eventually(t, func() bool { return senders() == before }, patience, 10*time.Millisecond)
	visit(topics[0])
	require.Eventually(t, func() bool { return senders() == before }, patience, 10*time.Millisecond)
}
