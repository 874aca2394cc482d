package tests

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
)

// publishAndLeave publishes messages and closes their publisher: their receiver has the only copies.
func publishAndLeave(t *testing.T, topic string, count int) {
	t.Helper()
	pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{}, nil)
	require.NoError(t, err)
	require.NoError(t, pub.Publish(topic, newMessages(count)...))
	require.NoError(t, pub.Close())
}

// handleSlowly acks what comes after a while each, and counts.
func handleSlowly(messages <-chan *message.Message, each time.Duration) (*atomic.Int32, <-chan struct{}) {
	count, ended := new(atomic.Int32), make(chan struct{})
	go func() {
		defer close(ended)
		for msg := range messages {
			time.Sleep(each) // a handler's work
			count.Add(1)
			msg.Ack()
		}
	}()
	return count, ended
}

func numbers(from, to int) (all []string) {
	for i := from; i < to; i++ {
		all = append(all, strconv.Itoa(i))
	}
	return all
}

func TestPubSub_CloseHandlesWhatWasPublished(t *testing.T) {
	ps, err := buffstreams.NewPubSub(buffstreams.PubSubConfig{}, nil)
	require.NoError(t, err)
	handled, ended := handleSlowly(subscribe(t, ps.Subscriber, "a"), time.Millisecond)
	require.NoError(t, ps.Publish("a", newMessages(100)...))
	require.NoError(t, ps.Close())
	<-ended
	require.EqualValues(t, 100, handled.Load())
}

// TestPubSub_CloseSaysWhatNobodyHandled, and does not wait for a subscription that is not there.
func TestPubSub_CloseSaysWhatNobodyHandled(t *testing.T) {
	for _, side := range []string{"manager", "publisher", "subscriber"} {
		t.Run(side, func(t *testing.T) {
			var left failures
			var texts []string
			cfg := buffstreams.PubSubConfig{}
			switch side {
			case "manager":
				cfg.Manager.OnFailure = left.add
			case "publisher":
				cfg.Publisher.OnFailure = left.add
			case "subscriber":
				cfg.Subscriber.OnFailure = func(msg *message.Message, err error) {
					texts = append(texts, string(msg.Payload))
					left.errs = append(left.errs, err)
				}
			}
			cfg.Subscriber.CloseTimeout = time.Hour
			ps, err := buffstreams.NewPubSub(cfg, nil)
			require.NoError(t, err)
			require.NoError(t, ps.SubscribeInitialize("a"))
			require.NoError(t, ps.Publish("a", newMessages(3)...))
			closed := later(ps.Close)
			err = requireResult(t, closed)
			requireUndelivered(t, err, "a", 3)
			require.Equal(t, numbers(0, 3), append(texts, left.got()...))
			require.ErrorIs(t, left.errs[0], buffstreams.ErrUndelivered)
			require.Equal(t, err, ps.Close())
		})
	}
}

// TestManager_CloseSaysWhatItsSubscribersLeft: the publisher's process has ended, and the last Subscriber is closed.
func TestManager_CloseSaysWhatItsSubscribersLeft(t *testing.T) {
	t.Parallel()
	var left failures
	h := newHouse(t, buffstreams.ManagerConfig{OnFailure: left.add})
	sub := h.newSubscriber(t, nil)
	messages := subscribe(t, sub, h.topic("a"))
	publishAndLeave(t, h.topic("a"), 50)
	receive(t, messages).Ack()
	require.NoError(t, sub.Close(), "it hands back to a Manager that lives on")
	requireUndelivered(t, h.manager.Close(), "a", 49)
	require.Equal(t, numbers(1, 50), left.got())
}

// TestSubscriber_SharedHandlesWhatItAloneHas: its Manager lives on, and has nothing left to answer for.
func TestSubscriber_SharedHandlesWhatItAloneHas(t *testing.T) {
	h := newHouse(t, buffstreams.ManagerConfig{})
	sub := h.newSubscriber(t, func(c *buffstreams.SubscriberConfig) { c.CloseTimeout = patience })
	handled, ended := handleSlowly(subscribe(t, sub, h.topic("a")), time.Millisecond)
	publishAndLeave(t, h.topic("a"), 50)
	require.NoError(t, sub.Close())
	<-ended
	require.EqualValues(t, 50, handled.Load())
	require.NoError(t, h.manager.Close())
}

// TestManager_CloseLetsSubscriptionsHandle what exists nowhere else, without a Close of theirs.
func TestManager_CloseLetsSubscriptionsHandle(t *testing.T) {
	h := newHouse(t, buffstreams.ManagerConfig{})
	handled, ended := handleSlowly(subscribe(t, h.newSubscriber(t, nil), h.topic("a")), time.Millisecond)
	publishAndLeave(t, h.topic("a"), 50)
	require.NoError(t, h.manager.Close())
	<-ended
	require.EqualValues(t, 50, handled.Load())
}

// TestManager_CloseListenerAccounts as Close does.
func TestManager_CloseListenerAccounts(t *testing.T) {
	var left failures
	h := newHouse(t, buffstreams.ManagerConfig{OnFailure: left.add})
	require.NoError(t, h.newSubscriber(t, nil).SubscribeInitialize(h.topic("a")))
	publishAndLeave(t, h.topic("a"), 5)
	requireUndelivered(t, h.manager.CloseListener(context.Background(), h.address), "a", 5)
	require.NoError(t, h.manager.Close())
	require.Equal(t, numbers(0, 5), left.got())
}

// TestSubscriber_CloseSaysWhatAStuckHandlerKept, within its time-out and not twice that.
func TestSubscriber_CloseSaysWhatAStuckHandlerKept(t *testing.T) {
	t.Parallel()
	var left []string
	topic := freeAddress(t) + "/a"
	const timeout = 4 * time.Second // of which another is more than a busy machine takes besides
	sub, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{
		ConsumerGroup: "g", CloseTimeout: timeout, MaxInFlight: 2,
		OnFailure: func(msg *message.Message, err error) {
			require.ErrorIs(t, err, buffstreams.ErrUndelivered)
			left = append(left, string(msg.Payload))
		},
	}, nil)
	require.NoError(t, err)
	messages := subscribe(t, sub, topic)
	publishAndLeave(t, topic, 5)
	receive(t, messages) // its handler is stuck
	other := later(sub.Close)
	start := time.Now()
	err = sub.Close()
	require.Less(t, time.Since(start), 2*timeout)
	requireUndelivered(t, err, "a", 5)
	require.Equal(t, numbers(0, 5), left)
	require.Equal(t, err, requireResult(t, other), "the same for each Close")
}

// TestSubscriber_CloseIsNilWhilePublishersLive: they keep what was not handled, whether there was a subscription for it or not.
func TestSubscriber_CloseIsNilWhilePublishersLive(t *testing.T) {
	for name, subscribed := range map[string]bool{"subscribed": true, "initialized": false} {
		t.Run(name, func(t *testing.T) {
			topic := freeAddress(t) + "/a"
			sub, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{ConsumerGroup: "g", CloseTimeout: 50 * time.Millisecond}, nil)
			require.NoError(t, err)
			require.NoError(t, sub.SubscribeInitialize(topic))
			pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{CloseTimeout: time.Millisecond}, nil)
			require.NoError(t, err)
			require.NoError(t, pub.Publish(topic, newMessages(5)...))
			if subscribed {
				receive(t, subscribe(t, sub, topic))
			}
			require.NoError(t, sub.Close())
			requireUndelivered(t, pub.Close(), "a", 5)
		})
	}
}

// lateConn is a connection that is heard late.
type lateConn struct {
	net.Conn
	by time.Duration
}

func (c lateConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	time.Sleep(c.by)
	return n, err
}

// TestSubscriber_CloseHearsPublishersThatAnswerLate: that a Close has no time left makes nothing of theirs undelivered.
func TestSubscriber_CloseHearsPublishersThatAnswerLate(t *testing.T) {
	topic := freeAddress(t) + "/a"
	sub, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{ConsumerGroup: "g", CloseTimeout: time.Millisecond}, nil)
	require.NoError(t, err)
	require.NoError(t, sub.SubscribeInitialize(topic))
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, address)
		return lateConn{conn, 10 * time.Millisecond}, err
	}
	pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{
		ManagerConfig: buffstreams.ManagerConfig{Dial: dial}, CloseTimeout: time.Millisecond,
	}, nil)
	require.NoError(t, err)
	require.NoError(t, pub.Publish(topic, newMessages(5)...))
	require.NoError(t, sub.Close())
	requireUndelivered(t, pub.Close(), "a", 5)
}

// TestSubscriber_CloseAccountsForPlainPeers, which keep nothing.
func TestSubscriber_CloseAccountsForPlainPeers(t *testing.T) {
	topic := freeAddress(t)
	var left []string
	sub, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{
		Wire: buffstreams.WireBuffStreams, Unmarshaler: buffstreams.RawMarshaler{}, CloseTimeout: 50 * time.Millisecond,
		OnFailure: func(msg *message.Message, _ error) { left = append(left, string(msg.Payload)) },
	}, nil)
	require.NoError(t, err)
	messages := subscribe(t, sub, topic)
	pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{
		Wire: buffstreams.WireBuffStreams, Marshaler: buffstreams.RawMarshaler{}, Confirm: buffstreams.ConfirmEnqueued,
	}, nil)
	require.NoError(t, err)
	require.NoError(t, pub.Publish(topic, newMessages(5)...))
	require.NoError(t, pub.Close())
	receive(t, messages).Ack()
	receive(t, messages)
	requireUndelivered(t, sub.Close(), "", 4)
	require.Equal(t, numbers(1, 5), left)
}

// TestManager_CloseKnowsItsOwnSenders, whatever address they have dialed: they end before the listener does, which then accounts
// for what they sent. One message of theirs finds no topic, so that they take their time.
func TestManager_CloseKnowsItsOwnSenders(t *testing.T) {
	t.Parallel()
	for listened, dialed := range map[string]string{"127.0.0.1": "localhost", "localhost": "localhost", "": "127.0.0.1"} {
		t.Run(fmt.Sprintf("%q from %q", listened, dialed), func(t *testing.T) {
			m, err := buffstreams.NewManager(buffstreams.ManagerConfig{CloseTimeout: time.Second, Acked: buffstreams.AckedConfig{Insecure: true}})
			require.NoError(t, err)
			sub, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{Manager: m, ConsumerGroup: "g", ListenAddress: listened + ":0"}, nil)
			require.NoError(t, err)
			handled, ended := handleSlowly(subscribe(t, sub, "a"), time.Millisecond)
			addr, err := sub.Addr("a")
			require.NoError(t, err)
			_, port, err := net.SplitHostPort(addr.String())
			require.NoError(t, err)
			pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{Manager: m, Confirm: buffstreams.ConfirmEnqueued}, nil)
			require.NoError(t, err)
			require.NoError(t, pub.Publish(dialed+":"+port+"/a", newMessages(20)...))
			require.NoError(t, pub.Flush(context.Background()))
			require.NoError(t, pub.Publish(dialed+":"+port+"/b", newMessages(1)...))
			requireUndelivered(t, m.Close(), "b", 1)
			require.Error(t, pub.Close(), "it says the same")
			<-ended
			require.EqualValues(t, 20, handled.Load())
			require.NoError(t, sub.Close())
		})
	}
}

// TestManager_CloseCountsWhatAStuckHandlerHas: its time is over with the Manager's, whatever its Subscriber would give it.
func TestManager_CloseCountsWhatAStuckHandlerHas(t *testing.T) {
	var left failures
	h := newHouse(t, buffstreams.ManagerConfig{CloseTimeout: 100 * time.Millisecond, OnFailure: left.add})
	messages := subscribe(t, h.newSubscriber(t, func(c *buffstreams.SubscriberConfig) { c.CloseTimeout, c.MaxInFlight = time.Minute, 2 }), h.topic("a"))
	publishAndLeave(t, h.topic("a"), 4)
	stuck := receive(t, messages)
	began := time.Now()
	requireUndelivered(t, h.manager.Close(), "a", 4)
	require.Less(t, time.Since(began), 30*time.Second)
	require.Equal(t, numbers(0, 4), left.got())
	require.Error(t, stuck.Context().Err())
	for msg := range messages {
		require.Fail(t, "nothing more is emitted", "%s", msg.Payload)
	}
}

// TestManager_HearsOfWhatIsRejectedWhenItsPublisherIsGone: the whole process of the publisher has ended.
func TestManager_HearsOfWhatIsRejectedWhenItsPublisherIsGone(t *testing.T) {
	for _, own := range []bool{false, true} {
		t.Run(fmt.Sprintf("with an OnFailure of the Subscriber: %v", own), func(t *testing.T) {
			var rejected failures
			h := newHouse(t, buffstreams.ManagerConfig{OnFailure: rejected.add})
			var told []string
			messages := subscribe(t, h.newSubscriber(t, func(c *buffstreams.SubscriberConfig) {
				c.MaxAttempts = 1
				if own {
					c.OnFailure = func(msg *message.Message, _ error) { told = append(told, string(msg.Payload)) }
				}
			}), h.topic("a"))
			publishAndLeave(t, h.topic("a"), 2)
			receive(t, messages).Nack()
			receive(t, messages).Ack()
			require.NoError(t, h.manager.Close())
			if own {
				require.Equal(t, numbers(0, 1), told)
				require.Empty(t, rejected.got())
				return
			}
			require.Equal(t, numbers(0, 1), rejected.got())
			var reason *buffstreams.AttemptsExhaustedError
			require.ErrorAs(t, rejected.errs[0], &reason)
		})
	}
}

// TestManager_HearsOfARejectionOnceAllGroupsAreThrough: its publisher was there when a group rejected the message, and is gone when
// the other has handled it.
func TestManager_HearsOfARejectionOnceAllGroupsAreThrough(t *testing.T) {
	var rejected failures
	h := newHouse(t, buffstreams.ManagerConfig{OnFailure: rejected.add})
	messages := subscribe(t, h.newSubscriber(t, func(c *buffstreams.SubscriberConfig) { c.MaxAttempts = 1 }), h.topic("a"))
	slow := subscribe(t, h.newSubscriber(t, func(c *buffstreams.SubscriberConfig) { c.ConsumerGroup = "slow" }), h.topic("a"))
	pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{}, nil)
	require.NoError(t, err)
	require.NoError(t, pub.Publish(h.topic("a"), newMessages(2)...))
	receive(t, messages).Nack()
	receive(t, messages).Ack()
	require.NoError(t, pub.Close())
	require.Empty(t, rejected.got())
	receiveAcked(t, slow, 2)
	require.NoError(t, h.manager.Close())
	require.Equal(t, numbers(0, 1), rejected.got())
}

// TestSubscriber_CloseOfTwoUnnamedSubscriptionsLosesNothing: both end with their listener, each beside the other. What
// neither has handled goes back to the publisher's Manager, which counts it.
func TestSubscriber_CloseOfTwoUnnamedSubscriptionsLosesNothing(t *testing.T) {
	for range 20 { // which of them ends first is up to the scheduler
		topic := freeAddress(t) + "/a"
		sub, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{CloseTimeout: time.Second}, nil)
		require.NoError(t, err)
		_, err = sub.Subscribe(t.Context(), topic) // is not read
		require.NoError(t, err)
		var left failures
		m, err := buffstreams.NewManager(buffstreams.ManagerConfig{OnFailure: left.add, CloseTimeout: 50 * time.Millisecond})
		require.NoError(t, err)
		pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{Manager: m}, nil)
		require.NoError(t, err)
		require.NoError(t, pub.Publish(topic, newMessages(1)...))
		require.NoError(t, pub.Close())
		_, err = sub.Subscribe(t.Context(), topic) // has nothing to do with what came before
		require.NoError(t, err)
		require.NoError(t, sub.Close(), "the publisher's Manager keeps it")
		requireUndelivered(t, m.Close(), "a", 1)
		require.Equal(t, numbers(0, 1), left.got())
	}
}
