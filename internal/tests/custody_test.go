package tests

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
)

// failures collects what an OnFailure hook gets.
type failures struct {
	mu   sync.Mutex
	all  []string
	errs []error
}

func (f *failures) add(_ string, encoded []byte, err error) {
	msg, decodeErr := buffstreams.EnvelopeMarshaler{}.Unmarshal("", encoded)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.errs = append(f.errs, err)
	if decodeErr == nil {
		f.all = append(f.all, string(msg.Payload))
	}
}

func (f *failures) got() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string(nil), f.all...)
}

// requireUndelivered wants an error that accounts for count messages of one topic.
func requireUndelivered(t *testing.T, err error, topic string, count int) {
	t.Helper()
	var left *buffstreams.UndeliveredError
	require.ErrorAs(t, err, &left)
	require.Equal(t, count, left.Count)
	require.Len(t, left.Parts, 1)
	require.Equal(t, topic, left.Parts[0].Topic)
	require.Equal(t, count, left.Parts[0].Count)
}

// TestPublisher_CloseAccountsForWhatAReceiverTookAlong: received lapses when the receiver is gone. It closes before the
// publisher, and hands back what it has not handled; nobody else will come.
func TestPublisher_CloseAccountsForWhatAReceiverTookAlong(t *testing.T) {
	topic := freeAddress(t) + "/a"
	sub, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{CloseTimeout: 50 * time.Millisecond, ConsumerGroup: "g"}, nil)
	require.NoError(t, err)
	messages := subscribe(t, sub, topic)
	var left failures
	pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{
		CloseTimeout: 200 * time.Millisecond, OnFailure: left.add,
		ManagerConfig: buffstreams.ManagerConfig{Acked: quick(buffstreams.AckedConfig{})},
	}, nil)
	require.NoError(t, err)
	require.NoError(t, pub.Publish(topic, newMessages(5)...), "all are received")
	receive(t, messages).Ack()
	receive(t, messages) // a handler that does not get to its ack
	require.NoError(t, sub.Close())
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	require.Error(t, pub.Flush(ctx), "no receiver holds them")
	err = pub.Close()
	requireUndelivered(t, err, "a", 4)
	require.Equal(t, []string{"1", "2", "3", "4"}, left.got(), "each is given to OnFailure, in order")
	require.ErrorIs(t, left.errs[0], buffstreams.ErrUndelivered)
	require.Equal(t, err, pub.Close(), "a second Close says the same")
}

// TestPublisher_CloseWaitsForAReceiverThatComesBack within its time-out.
func TestPublisher_CloseWaitsForAReceiverThatComesBack(t *testing.T) {
	topic := freeAddress(t) + "/a"
	cfg := buffstreams.SubscriberConfig{CloseTimeout: 10 * time.Millisecond, ConsumerGroup: "g"}
	sub, err := buffstreams.NewSubscriber(cfg, nil)
	require.NoError(t, err)
	subscribe(t, sub, topic)
	pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{
		CloseTimeout: patience, ManagerConfig: buffstreams.ManagerConfig{Acked: quick(buffstreams.AckedConfig{})},
	}, nil)
	require.NoError(t, err)
	require.NoError(t, pub.Publish(topic, newMessages(3)...))
	require.NoError(t, sub.Close())
	closed := later(pub.Close)
	again, err := buffstreams.NewSubscriber(cfg, nil)
	require.NoError(t, err)
	messages := subscribe(t, again, topic)
	require.NoError(t, requireResult(t, closed))
	require.Equal(t, []string{"0", "1", "2"}, receiveAcked(t, messages, 3))
	require.NoError(t, again.Close())
}

// TestManager_CloseReportsWhatPublishersHandedOver: a Publisher that closes on a Manager that lives on leaves it what was
// received; that lapses with the receiver, and the Manager answers for it.
func TestManager_CloseReportsWhatPublishersHandedOver(t *testing.T) {
	h := newHouse(t, buffstreams.ManagerConfig{})
	var left failures
	m, err := buffstreams.NewManager(buffstreams.ManagerConfig{CloseTimeout: 100 * time.Millisecond, OnFailure: left.add, Acked: quick(buffstreams.AckedConfig{})})
	require.NoError(t, err)
	sub := h.newSubscriber(t, nil)
	subscribe(t, sub, h.topic("a"))
	pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{Manager: m}, nil)
	require.NoError(t, err)
	require.NoError(t, pub.Publish(h.topic("a"), newMessages(3)...))
	require.NoError(t, pub.Close())
	require.NoError(t, h.manager.CloseListener(context.Background(), h.address))
	require.Eventually(t, func() bool { return !m.PeerStatus(h.address).Connected }, patience, time.Millisecond)
	requireUndelivered(t, m.Close(), "a", 3)
	require.Equal(t, []string{"0", "1", "2"}, left.got())
}

// TestManager_HearsOfWhatIsRefusedWhenItsPublisherHasLeft, whose nil Close was the last that the publisher could say.
func TestManager_HearsOfWhatIsRefusedWhenItsPublisherHasLeft(t *testing.T) {
	h := newHouse(t, buffstreams.ManagerConfig{})
	var refused failures
	m, err := buffstreams.NewManager(buffstreams.ManagerConfig{OnFailure: refused.add, Acked: quick(buffstreams.AckedConfig{})})
	require.NoError(t, err)
	messages := subscribe(t, h.newSubscriber(t, func(c *buffstreams.SubscriberConfig) { c.MaxAttempts = 1 }), h.topic("a"))
	var own failures
	pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{Manager: m, OnFailure: own.add}, nil)
	require.NoError(t, err)
	require.NoError(t, pub.Publish(h.topic("a"), newMessages(2)...))
	receive(t, messages).Nack()
	second := receive(t, messages)
	require.Eventually(t, func() bool { return len(own.got()) == 1 }, patience, time.Millisecond)
	require.NoError(t, pub.Close())
	require.Empty(t, refused.got(), "the Publisher has heard of it")
	second.Nack()
	require.Eventually(t, func() bool { return len(refused.got()) == 1 }, patience, time.Millisecond)
	require.NoError(t, m.Close())
	require.Equal(t, []string{"1"}, refused.got())
	require.ErrorIs(t, refused.errs[0], buffstreams.ErrHandlingFailed)
	require.Equal(t, []string{"0"}, own.got())
}

// TestPublisher_DrainWaitsUntilHandled and no longer.
func TestPublisher_DrainWaitsUntilHandled(t *testing.T) {
	h := newHouse(t, buffstreams.ManagerConfig{})
	messages := subscribe(t, h.newSubscriber(t, nil), h.topic("a"))
	pub := h.newPublisher(t, nil)
	require.NoError(t, pub.Publish(h.topic("a"), newMessages(2)...))
	require.NoError(t, pub.Flush(context.Background()), "they are received")
	drained := later(func() error { return pub.Drain(context.Background()) })
	receive(t, messages).Ack()
	require.Never(t, func() bool { return len(drained) > 0 }, 50*time.Millisecond, time.Millisecond)
	receive(t, messages).Ack()
	require.NoError(t, requireResult(t, drained))
}

// TestPublisher_DrainIsNotNilForWhatACloseLeft with its receiver, which has not handled it.
func TestPublisher_DrainIsNotNilForWhatACloseLeft(t *testing.T) {
	h := newHouse(t, buffstreams.ManagerConfig{})
	messages := subscribe(t, h.newSubscriber(t, nil), h.topic("a"))
	pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{}, nil)
	require.NoError(t, err)
	require.NoError(t, pub.Publish(h.topic("a"), newMessages(2)...))
	receive(t, messages).Ack()
	drained := later(func() error { return pub.Drain(context.Background()) })
	require.NoError(t, pub.Close(), "everything is received")
	require.Error(t, requireResult(t, drained))
	require.ErrorIs(t, pub.Drain(context.Background()), buffstreams.ErrPublisherClosed)
	receiveAcked(t, messages, 1)
}

// TestManager_ClosesSideBySide: every Close waits for the same end and says the same.
func TestManager_ClosesSideBySide(t *testing.T) {
	m, err := buffstreams.NewManager(buffstreams.ManagerConfig{CloseTimeout: 50 * time.Millisecond})
	require.NoError(t, err)
	pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{Manager: m, Confirm: buffstreams.ConfirmEnqueued}, nil)
	require.NoError(t, err)
	require.NoError(t, pub.Publish(freeAddress(t)+"/a", newMessage("x")))
	var wg sync.WaitGroup
	results := make([]error, 8)
	for i := range results {
		wg.Go(func() { results[i] = m.Close() })
	}
	wg.Wait()
	for _, err := range results {
		require.ErrorIs(t, err, buffstreams.ErrUndelivered, fmt.Sprint(results))
	}
}
