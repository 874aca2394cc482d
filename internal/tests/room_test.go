package tests

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
)

// withKey returns n messages of a key, with the key as payload.
func withKey(key string, n int) (msgs []*message.Message) {
	for range n {
		msg := newMessage(key)
		msg.Metadata.Set("key", key)
		msgs = append(msgs, msg)
	}
	return msgs
}

// outsider returns a publisher with windows of its own.
func outsider(t *testing.T, change func(*buffstreams.PublisherConfig)) *buffstreams.Publisher {
	t.Helper()
	cfg := buffstreams.PublisherConfig{PublishTimeout: patience, CloseTimeout: 10 * time.Millisecond}
	if change != nil {
		change(&cfg)
	}
	pub, err := buffstreams.NewPublisher(cfg, nil)
	require.NoError(t, err)
	t.Cleanup(func() { _ = pub.Close() })
	return pub
}

// A sender with much to send asks for an eighth of the window. Where messages that are stuck leave less, and everything
// else was handled, it gets what there is.
func TestRoom_AnEighthThatIsNeverFree(t *testing.T) {
	t.Parallel()
	h := newHouse(t, buffstreams.ManagerConfig{Acked: buffstreams.AckedConfig{WindowMessages: 800}})
	messages := subscribe(t, h.newSubscriber(t, keyed), h.topic("a"))
	good := make(chan struct{}, 1000)
	go func() { // ends with the subscription
		for msg := range messages {
			if msg.Metadata.Get("key") == "good" {
				msg.Ack()
				good <- struct{}{}
			}
		}
	}()
	for i := range 5 { // 70 of 800 are left
		require.NoError(t, outsider(t, nil).Publish(h.topic("a"), withKey(fmt.Sprint("stuck", i), 146)...))
	}
	for _, n := range []int{60, 200, 1, 500} {
		require.NoError(t, outsider(t, nil).Publish(h.topic("a"), withKey("good", n)...), "%d at a time", n)
		for range n {
			<-good
		}
	}
}

// A message that needs much room gets it in its turn, though small ones would find room all the time.
func TestRoom_ALargeMessageAmongSmallOnes(t *testing.T) {
	h := newHouse(t, buffstreams.ManagerConfig{Acked: buffstreams.AckedConfig{WindowBytes: 2 << 20, MemoryLimit: 8 << 20}})
	messages := subscribe(t, h.newSubscriber(t, nil), h.topic("a"))
	go func() { // ends with the subscription
		for msg := range messages {
			msg.Ack()
		}
	}()
	pub := h.newPublisher(t, func(c *buffstreams.PublisherConfig) { c.Confirm = buffstreams.ConfirmEnqueued })
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	var waiting atomic.Int64
	for range 8 {
		wg.Go(func() { // ends with ctx
			for ctx.Err() == nil {
				_ = pub.Publish(h.topic("a"), message.NewMessage("s", make([]byte, 100_000)))
				waiting.Add(1)
			}
		})
	}
	for range 5 {
		before := waiting.Load()
		require.NoError(t, pub.Publish(h.topic("a"), message.NewMessage("large", make([]byte, 1_000_000))))
		require.Less(t, waiting.Load()-before, int64(2000), "those that came later went first") // 10, where none of the callers is held up
	}
	stop()
	wg.Wait()
}

// crowded is a house whose memory sixteen windows could take.
func crowded(t *testing.T) *house {
	return newHouse(t, buffstreams.ManagerConfig{CloseTimeout: 10 * time.Millisecond, Acked: buffstreams.AckedConfig{
		MaxMessageSize: 64 << 10, WindowBytes: 256 << 10, MemoryLimit: 16 * 256 << 10,
	}})
}

// fillTopic publishes to a topic until its windows are full.
func fillTopic(t *testing.T, pub *buffstreams.Publisher, topic string) {
	t.Helper()
	for range 1000 {
		if pub.Publish(topic, message.NewMessage("s", make([]byte, 16<<10))) != nil {
			return
		}
	}
	require.Fail(t, "it takes everything")
}

func impatient(c *buffstreams.PublisherConfig) {
	c.Confirm, c.PublishTimeout, c.CloseTimeout = buffstreams.ConfirmEnqueued, 50*time.Millisecond, 10*time.Millisecond
}

// requireRoom requires that messages of any size get through to a prompt reader.
func requireRoom(t *testing.T, h *house) {
	t.Helper()
	messages := subscribe(t, h.newSubscriber(t, nil), h.topic("alive"))
	pub := h.newPublisher(t, nil)
	const n = 300
	result := later(func() error {
		for i := range n {
			size := 100
			if i%10 == 0 {
				size = 60 << 10
			}
			if err := pub.Publish(h.topic("alive"), message.NewMessage(fmt.Sprint(i), make([]byte, size))); err != nil {
				return err
			}
		}
		return nil
	})
	for range n {
		receive(t, messages).Ack()
	}
	require.NoError(t, requireResult(t, result))
}

// More topics than the memory has windows for have consumers that never ack.
func TestRoom_StuckTopicsLeaveSome(t *testing.T) {
	h := crowded(t)
	sub, pub := h.newSubscriber(t, nil), h.newPublisher(t, impatient)
	for i := range 20 {
		topic := h.topic(fmt.Sprint("stuck", i))
		subscribe(t, sub, topic)
		fillTopic(t, pub, topic)
	}
	requireRoom(t, h)
}

// More topics than the memory has windows for have lost their subscriptions.
func TestRoom_AbandonedTopicsLeaveSome(t *testing.T) {
	h := crowded(t)
	h.subscriber.CloseTimeout = time.Millisecond
	pub := outsider(t, func(c *buffstreams.PublisherConfig) {
		impatient(c)
		c.ManagerConfig.Acked = buffstreams.AckedConfig{MaxMessageSize: 64 << 10, WindowBytes: 256 << 10}
	})
	for i := range 20 {
		topic := h.topic(fmt.Sprint("abandoned", i))
		sub := h.newSubscriber(t, nil)
		subscribe(t, sub, topic)
		require.NoError(t, pub.Publish(topic, newMessage("first")))
		_ = sub.Close()
		fillTopic(t, pub, topic)
	}
	requireRoom(t, h)
}

// Peers that never came, and peers that left with full windows.
func TestRoom_AbsentPeersLeaveSome(t *testing.T) {
	for name, left := range map[string]bool{"they never came": false, "they left": true} {
		t.Run(name, func(t *testing.T) {
			h := crowded(t)
			pub := h.newPublisher(t, impatient)
			for i := range 20 {
				peer := newHouse(t, buffstreams.ManagerConfig{CloseTimeout: time.Millisecond})
				if left {
					subscribe(t, peer.newSubscriber(t, nil), peer.topic("a"))
					require.NoError(t, h.newPublisher(t, nil).Publish(peer.topic("a"), newMessage(fmt.Sprint(i))))
					fillTopic(t, pub, peer.topic("a"))
				}
				_ = peer.manager.Close()
				if !left {
					fillTopic(t, pub, peer.topic("a"))
				}
			}
			requireRoom(t, h)
			require.NoError(t, pub.Publish(h.topic("alive"), newMessage("also from here")))
		})
	}
}

// The error of a Publish that gives up says what it waited for.
func TestTimeout_SaysWhy(t *testing.T) {
	t.Parallel()
	h := newHouse(t, buffstreams.ManagerConfig{Acked: buffstreams.AckedConfig{
		WindowMessages: 8, Groups: map[string][]string{"declared": {"here", "there"}},
	}})
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = silent.Close() })
	slow := h.newSubscriber(t, inGroup("slow"))
	subscribe(t, slow, h.topic("full"))
	subscribe(t, h.newSubscriber(t, inGroup("here")), h.topic("declared"))
	for name, c := range map[string]struct {
		topic   string
		confirm buffstreams.Confirm
		count   int
		why     []string
	}{
		"nothing listens":       {freeAddress(t) + "/a", buffstreams.ConfirmReceived, 1, []string{"connection refused"}},
		"no greeting":           {silent.Addr().String() + "/a", buffstreams.ConfirmReceived, 1, []string{"greeting"}},
		"nobody has subscribed": {h.topic("typo"), buffstreams.ConfirmReceived, 1, []string{"nobody has subscribed"}},
		"one group is missing":  {h.topic("declared"), buffstreams.ConfirmReceived, 1, []string{"declared", `group \"there\"`}},
		"a group is full":       {h.topic("full"), buffstreams.ConfirmReceived, 20, []string{`group \"slow\"`, "window"}},
		"not handled":           {h.topic("full"), buffstreams.ConfirmHandled, 1, []string{"handled"}},
	} {
		t.Run(name, func(t *testing.T) {
			pub := outsider(t, func(cfg *buffstreams.PublisherConfig) {
				cfg.Confirm, cfg.PublishTimeout = c.confirm, 300*time.Millisecond
			})
			require.EventuallyWithT(t, func(now *assert.CollectT) { // as soon as the peer has been heard within the time-out
				err := pub.Publish(c.topic, newMessages(c.count)...)
				require.ErrorIs(now, err, buffstreams.ErrTimeout)
				for _, text := range c.why {
					require.ErrorContains(now, err, text)
				}
			}, patience, time.Millisecond)
		})
	}
}
