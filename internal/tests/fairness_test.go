package tests

import (
	"fmt"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/route"
)

func inGroup(name string) func(*buffstreams.SubscriberConfig) {
	return func(c *buffstreams.SubscriberConfig) { c.ConsumerGroup = name }
}

// TestTopic_SlowDelaysNoOther: one topic's window is full and stays so, beside another on the same connection.
func TestTopic_SlowDelaysNoOther(t *testing.T) {
	h := newHouse(t, buffstreams.ManagerConfig{Acked: buffstreams.AckedConfig{WindowMessages: 16}})
	sub := h.newSubscriber(t, nil)
	stuck := subscribe(t, sub, h.topic("stuck")) // nobody reads it
	fast := subscribe(t, sub, h.topic("fast"))
	pub := h.newPublisher(t, nil)
	blocked := later(func() error { return pub.Publish(h.topic("stuck"), newMessages(100)...) })
	for i := range 500 {
		require.NoError(t, pub.Publish(h.topic("fast"), newMessage(fmt.Sprint(i))))
		require.Equal(t, []string{fmt.Sprint(i)}, receiveAcked(t, fast, 1))
	}
	select {
	case err := <-blocked:
		require.Fail(t, "the stuck topic took more than its windows", "%v", err)
	default:
	}
	require.Equal(t, payloads(newMessages(100)), receiveAcked(t, stuck, 100)) // until now
	require.NoError(t, requireResult(t, blocked))
}

// TestAck_IsSentThoughTheNextMessageIsStuck: while many messages wait acks are told in runs, but not for longer than a
// moment.
func TestAck_IsSentThoughTheNextMessageIsStuck(t *testing.T) {
	h := newHouse(t, buffstreams.ManagerConfig{})
	messages := subscribe(t, h.newSubscriber(t, nil), h.topic("a"))
	enqueued := func(c *buffstreams.PublisherConfig) { c.Confirm = buffstreams.ConfirmEnqueued }
	handled := func(c *buffstreams.PublisherConfig) { c.Confirm = buffstreams.ConfirmHandled }
	crowd, waiting := h.newPublisher(t, enqueued), h.newPublisher(t, handled)
	confirmed := later(func() error { return waiting.Publish(h.topic("a"), newMessage("the one")) })
	one := receive(t, messages)
	require.NoError(t, crowd.Publish(h.topic("a"), newMessages(200)...))
	require.NoError(t, crowd.Flush(t.Context()))
	one.Ack()
	stuck := receive(t, messages)
	require.NoError(t, requireResult(t, confirmed)) // before PublishTimeout
	stuck.Ack()
	require.Equal(t, payloads(newMessages(200))[1:], receiveAcked(t, messages, 199))
}

// TestGroup_SlowDelaysNoOther: a group gets all that the window holds while another has read nothing. Then the topic is
// full and stands still until the slow one reads; another topic of the same connection goes on.
func TestGroup_SlowDelaysNoOther(t *testing.T) {
	const window, total = 64, 1000
	h := newHouse(t, buffstreams.ManagerConfig{Acked: buffstreams.AckedConfig{WindowMessages: window}})
	slow := subscribe(t, h.newSubscriber(t, inGroup("slow")), h.topic("a"))
	fast := subscribe(t, h.newSubscriber(t, inGroup("fast")), h.topic("a"))
	other := subscribe(t, h.newSubscriber(t, inGroup("fast")), h.topic("b"))
	pub := h.newPublisher(t, nil)
	all := newMessages(total)
	blocked := later(func() error { return pub.Publish(h.topic("a"), all...) })
	require.Equal(t, payloads(all[:window]), receiveAcked(t, fast, window))
	for i := range total {
		require.NoError(t, pub.Publish(h.topic("b"), newMessage(fmt.Sprint(i))))
		require.Equal(t, []string{fmt.Sprint(i)}, receiveAcked(t, other, 1))
	}
	select {
	case msg := <-fast:
		require.Fail(t, "more than the window", "%s", msg.Payload)
	case err := <-blocked:
		require.Fail(t, "the topic took more than its windows", "%v", err)
	default:
	}
	rest := make(chan []string, 1)
	go func() { // ends with the last message, or with the subscriber
		var got []string
		for msg := range fast {
			msg.Ack()
			if got = append(got, string(msg.Payload)); len(got) == total-window {
				rest <- got
			}
		}
	}()
	require.Equal(t, payloads(all), receiveAcked(t, slow, total))
	require.Equal(t, payloads(all[window:]), <-rest)
	require.NoError(t, requireResult(t, blocked))
}

// TestGroup_OverSeveralAddresses: a route leads to two listeners, each with two groups, of which one is away. The others
// get everything meanwhile, and it gets everything when it returns.
func TestGroup_OverSeveralAddresses(t *testing.T) {
	var addresses []string
	var channels []<-chan *message.Message
	var away *buffstreams.Subscriber
	for _, absent := range []string{"two", ""} {
		h := newHouse(t, buffstreams.ManagerConfig{})
		h.subscriber.ListenAddress = h.address
		addresses = append(addresses, h.address)
		for _, group := range []string{"one", "two"} {
			sub := h.newSubscriber(t, inGroup(group))
			if group == absent {
				require.NoError(t, sub.SubscribeInitialize("orders"))
				away = sub
				continue
			}
			channels = append(channels, subscribe(t, sub, "orders"))
		}
	}
	pub := routed(t, route.Route{Addresses: addresses, Policy: route.All})
	require.NoError(t, pub.Publish("orders", newMessages(100)...))
	require.Len(t, channels, 3)
	for _, messages := range channels {
		require.Equal(t, payloads(newMessages(100)), receiveAcked(t, messages, 100))
	}
	require.Equal(t, payloads(newMessages(100)), receiveAcked(t, subscribe(t, away, "orders"), 100))
}

// TestGroup_AwayHoldsMessages for its return, and its owner can drop it.
func TestGroup_AwayHoldsMessages(t *testing.T) {
	h := newHouse(t, buffstreams.ManagerConfig{Acked: buffstreams.AckedConfig{WindowMessages: 8}})
	away, here := h.newSubscriber(t, inGroup("away")), h.newSubscriber(t, inGroup("here"))
	require.NoError(t, away.SubscribeInitialize(h.topic("a")))
	messages := subscribe(t, here, h.topic("a"))
	pub := h.newPublisher(t, nil)
	blocked := later(func() error { return pub.Publish(h.topic("a"), newMessages(100)...) })
	receiveAcked(t, messages, 8) // as many as the window holds for the absent group
	select {
	case <-blocked:
		require.Fail(t, "an absent group must hold the publisher back within its bound")
	case <-messages:
		require.Fail(t, "more than the window")
	default:
	}
	require.NoError(t, here.DropGroup(h.topic("a"), "away"))
	receiveAcked(t, messages, 92)
	require.NoError(t, requireResult(t, blocked))
}

// TestGroup_ReadersThatDoNotReadHoldUpNoSibling: what nobody takes goes to a member of the group that waits for it.
func TestGroup_ReadersThatDoNotReadHoldUpNoSibling(t *testing.T) {
	for _, inFlight := range []int{1, 8} {
		h := newHouse(t, buffstreams.ManagerConfig{})
		member := func(c *buffstreams.SubscriberConfig) { c.ConsumerGroup, c.MaxInFlight = "g", inFlight }
		for range 3 {
			subscribe(t, h.newSubscriber(t, member), h.topic("a"))
		}
		reads := subscribe(t, h.newSubscriber(t, member), h.topic("a"))
		require.NoError(t, h.newPublisher(t, nil).Publish(h.topic("a"), newMessages(50)...))
		require.ElementsMatch(t, payloads(newMessages(50)), receiveAcked(t, reads, 50))
	}
}
