package tests

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/pool"
	"github.com/buffstreams/watermill-buffstreams/route"
)

// TestPublisher_CloseTellsOnFailureOfAllThatIsLeft, however much that is: it is in memory already.
func TestPublisher_CloseTellsOnFailureOfAllThatIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told atomic.Int32
		pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{
			Confirm: buffstreams.ConfirmEnqueued, CloseTimeout: time.Second, ManagerConfig: buffstreams.ManagerConfig{Dial: dialNobody},
			OnFailure: func(string, []byte, error) { time.Sleep(time.Millisecond); told.Add(1) },
		}, nil)
		require.NoError(t, err)
		for topic := range 3 {
			for range 12 {
				require.NoError(t, pub.Publish(fmt.Sprintf("127.0.0.1:1/%d", topic), sized("x", 1000<<10)))
			}
		}
		var left *buffstreams.UndeliveredError
		require.ErrorAs(t, pub.Close(), &left)
		require.Equal(t, 36, left.Count)
		require.EqualValues(t, 36, told.Load())
	})
}

// TestPublisher_DrainSaysWhatASlowOnFailureDidNotGet: what was refused and exceeds the bound is with nothing any more. It is counted
// once.
func TestPublisher_DrainSaysWhatASlowOnFailureDidNotGet(t *testing.T) {
	h := newHouse(t, buffstreams.ManagerConfig{})
	sub := h.newSubscriber(t, func(c *buffstreams.SubscriberConfig) {
		c.MaxInFlight, c.Unmarshaler = 100, unmarshalFunc(func([]byte) (*message.Message, error) { return nil, errors.New("no") })
	})
	subscribe(t, sub, h.topic("a"))
	var told atomic.Int32
	release := make(chan struct{})
	pub := h.newPublisher(t, func(c *buffstreams.PublisherConfig) {
		c.Confirm = buffstreams.ConfirmEnqueued
		c.OnFailure = func(string, []byte, error) { <-release; told.Add(1) }
	})
	const count = 24
	for range count {
		require.NoError(t, pub.Publish(h.topic("a"), sized("x", 1000<<10)))
	}
	require.Eventually(t, func() bool { return h.manager.PeerStatus(h.address).Pending == 0 }, patience, time.Millisecond)
	close(release)
	err := requireResult(t, later(func() error { return pub.Drain(context.Background()) }))
	requireUndelivered(t, err, "a", count-int(told.Load()))
	require.NoError(t, pub.Close())
}

// TestPublisher_NothingToPublish: no message, and a context that is cancelled, are errors of their call, on either wire and whatever
// bounds it.
func TestPublisher_NothingToPublish(t *testing.T) {
	h := newHouse(t, buffstreams.ManagerConfig{})
	messages := subscribe(t, h.newSubscriber(t, nil), h.topic("a"))
	pub := h.newPublisher(t, func(c *buffstreams.PublisherConfig) { c.PublishContext, c.TraceMessages = true, true })
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for range 2 { // the second time the topic is known
		var failed *buffstreams.PublishError
		require.ErrorAs(t, pub.Publish(h.topic("a"), nil), &failed)
		require.Len(t, failed.NotSent, 1)
		late := newMessage("late")
		late.SetContext(ctx)
		require.ErrorAs(t, pub.Publish(h.topic("a"), late, newMessage("beside it")), &failed)
		require.ErrorIs(t, failed, context.Canceled)
		require.Len(t, failed.NotSent, 2, "nothing of it was sent")
		require.NoError(t, pub.Publish(h.topic("a"), newMessage("good")))
		require.Equal(t, []string{"good"}, receiveAcked(t, messages, 1))
	}
	cfg := plainConfig(dialDeaf)
	cfg.Marshaler = marshalFunc(func([]byte, *message.Message) ([]byte, error) { panic("oops") })
	plain, err := buffstreams.NewPublisher(cfg, nil)
	require.NoError(t, err)
	var failed *buffstreams.PublishError
	for _, bad := range []*message.Message{nil, newMessage("panics")} {
		require.ErrorAs(t, plain.Publish("127.0.0.1:1", bad), &failed)
		require.Len(t, failed.NotSent, 1)
	}
	require.NoError(t, plain.Close())
}

// TestOutbox_DrainEndsWithItsPublisher, or the Manager: nothing delivers for it any more.
func TestOutbox_DrainEndsWithItsPublisher(t *testing.T) {
	for name, want := range map[string]error{"publisher": buffstreams.ErrPublisherClosed, "manager": buffstreams.ErrManagerClosed} {
		t.Run(name, func(t *testing.T) {
			m, _ := newPeer(t, buffstreams.ManagerConfig{CloseTimeout: 10 * time.Millisecond})
			pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{Manager: m, Outbox: openOutbox(t, t.TempDir()), CloseTimeout: time.Second}, nil)
			require.NoError(t, err)
			require.NoError(t, pub.Publish(freeAddress(t)+"/a", newMessages(1)...))
			drained := func() error { return pub.Drain(context.Background()) }
			before := later(drained)
			closer := map[string]func() error{"publisher": pub.Close, "manager": m.Close}[name]
			require.NoError(t, closer())
			require.ErrorIs(t, requireResult(t, before), want)
			require.ErrorIs(t, requireResult(t, later(drained)), want)
			require.NoError(t, pub.Close())
		})
	}
}

// TestPublisher_OnAClosedManager: every call says so, those that wait too, however long they may.
func TestPublisher_OnAClosedManager(t *testing.T) {
	m, _ := newPeer(t, buffstreams.ManagerConfig{Dial: dialNobody, CloseTimeout: 100 * time.Millisecond})
	hangs := make(chan struct{})
	defer close(hangs)
	pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{
		Manager: m, PublishTimeout: -1, CloseTimeout: time.Second,
		Resolver: route.Func(func(_ context.Context, topic string) (route.Route, error) {
			if topic == "hangs" {
				<-hangs
			}
			return route.Route{Addresses: []string{"127.0.0.1:2"}}, nil
		}),
	}, nil)
	require.NoError(t, err)
	publish := func() (results []<-chan error) {
		for _, topic := range []string{"127.0.0.1:1/a", "routed", "hangs"} {
			results = append(results, later(func() error { return pub.Publish(topic, newMessages(1)...) }))
		}
		return results
	}
	waiting := publish()
	require.Eventually(t, func() bool { return m.PeerStatus("127.0.0.1:1").Pending == 1 }, patience, time.Millisecond)
	requireUndelivered(t, m.Close(), "a", 1)
	for _, result := range append(waiting, publish()...) {
		require.ErrorIs(t, requireResult(t, result), buffstreams.ErrManagerClosed)
	}
	_ = pub.Close() // the Manager has said what became of the message
	require.ErrorIs(t, pub.Publish("routed", newMessages(1)...), buffstreams.ErrPublisherClosed)
}

// TestManager_CloseListenerSideBySide: a second call waits, in its own time, for the first; and Manager.Close waits for it, which has
// no more time than that.
func TestManager_CloseListenerSideBySide(t *testing.T) {
	var left failures
	h := newHouse(t, buffstreams.ManagerConfig{CloseTimeout: 100 * time.Millisecond, OnFailure: left.add})
	sub := h.newSubscriber(t, func(c *buffstreams.SubscriberConfig) { c.CloseTimeout = patience })
	messages := subscribe(t, sub, h.topic("a"))
	publishAndLeave(t, h.topic("a"), 3)
	receive(t, messages) // its handler is stuck
	patient, stop := context.WithTimeout(context.Background(), patience)
	defer stop()
	begin := time.Now()
	first := later(func() error { return h.manager.CloseListener(patient, h.address) })
	require.Eventually(t, func() bool { // it is under way
		conn, err := net.Dial("tcp", h.address)
		if err == nil {
			_ = conn.Close()
		}
		return err != nil
	}, patience, time.Millisecond)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	require.ErrorIs(t, h.manager.CloseListener(ctx, h.address), context.Canceled)
	second := later(func() error { return h.manager.CloseListener(context.Background(), h.address) })
	require.NoError(t, h.manager.Close(), "CloseListener says what is left")
	require.Less(t, time.Since(begin), patience/2)
	require.Equal(t, []string{"0", "1", "2"}, left.got())
	err := requireResult(t, first)
	requireUndelivered(t, err, "a", 3)
	require.Equal(t, err, requireResult(t, second))
	require.ErrorIs(t, h.manager.CloseListener(context.Background(), h.address), pool.ErrNotOpened)
}

// TestPublishError_IsShort, whatever the topic and the UUID are.
func TestPublishError_IsShort(t *testing.T) {
	h := newHouse(t, buffstreams.ManagerConfig{})
	pub := h.newPublisher(t, nil)
	huge := strings.Repeat("x", 2<<20)
	err := pub.Publish(h.topic("a"), message.NewMessage(huge, nil))
	require.ErrorIs(t, err, buffstreams.ErrTooLarge)
	require.Less(t, len(err.Error()), 1000)
	err = pub.Publish(h.topic(huge), newMessages(1)...)
	require.ErrorIs(t, err, buffstreams.ErrBadTopic)
	require.Less(t, len(err.Error()), 1000)
}

// TestUnix_SaysWhatIsWrongWithAPath: one that no socket can have is refused at once, at either end.
func TestUnix_SaysWhatIsWrongWithAPath(t *testing.T) {
	h := newHouse(t, buffstreams.ManagerConfig{})
	sub, dir := h.newSubscriber(t, nil), t.TempDir()
	long := "unix://" + dir + "/" + strings.Repeat("x", 108) + "#a"
	_, err := sub.Subscribe(context.Background(), long)
	require.ErrorIs(t, err, buffstreams.ErrBadTopic)
	require.ErrorIs(t, h.newPublisher(t, nil).Publish(long, newMessages(1)...), buffstreams.ErrBadTopic)

	require.NoError(t, os.WriteFile(dir+"/file", nil, 0o600))
	peer, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{}, nil) // newHouse has a Listen of its own
	require.NoError(t, err)
	defer func() { require.NoError(t, peer.Close()) }()
	_, err = peer.Subscribe(context.Background(), "unix://"+dir+"/file#a")
	require.ErrorContains(t, err, "no socket")
}
