package tests

import (
	"context"
	"fmt"
	"math"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
	"github.com/buffstreams/watermill-buffstreams/store"
)

func ephemeral(c *buffstreams.SubscriberConfig) { c.Ephemeral, c.ConsumerGroup = true, "" }

func TestEphemeral_EndsWithItsLastSubscription(t *testing.T) {
	t.Parallel()
	h := newHouse(t, buffstreams.ManagerConfig{Acked: buffstreams.AckedConfig{WindowMessages: 8}})
	sub, pub := h.newSubscriber(t, ephemeral), h.newPublisher(t, nil)
	ctx, cancel := context.WithCancel(context.Background())
	messages, err := sub.Subscribe(ctx, h.topic("reply"))
	require.NoError(t, err)
	require.NoError(t, pub.Publish(h.topic("reply"), newMessage("x")))
	receiveAcked(t, messages, 1)

	blocked := later(func() error { return pub.Publish(h.topic("reply"), newMessages(100)...) }) // more than both windows
	require.Equal(t, "0", string(receive(t, messages).Payload))
	cancel()
	require.ErrorIs(t, requireResult(t, blocked), buffstreams.ErrTopicGone)
	require.ErrorIs(t, pub.Publish(h.topic("reply"), newMessage("late")), buffstreams.ErrTopicGone)

	stranger := newHouse(t, buffstreams.ManagerConfig{}).newPublisher(t, nil) // who never had a stream to it learns it as well
	require.ErrorIs(t, stranger.Publish(h.topic("reply"), newMessage("later")), buffstreams.ErrTopicGone)

	again := subscribe(t, sub, h.topic("reply"))
	require.NoError(t, pub.Publish(h.topic("reply"), newMessage("again")))
	require.Equal(t, []string{"again"}, receiveAcked(t, again, 1))
}

// topicsSaved is a DedupeStore that knows nothing but the topics that were saved.
type topicsSaved struct {
	mu     sync.Mutex
	topics map[string]bool
}

func (*topicsSaved) Load(store.StreamID) (store.StreamState, bool, error) {
	return store.StreamState{}, false, nil
}

func (s *topicsSaved) Save(states map[store.StreamID]store.StreamState) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id := range states {
		s.topics[id.Topic] = true
	}
	return nil
}

func (*topicsSaved) Forget(store.StreamID) error { return nil }

func (s *topicsSaved) has(topic string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.topics[topic]
}

// TestEphemeral_LeavesNothingOnDisk, while an ordinary topic beside it, whose message comes later, is saved.
func TestEphemeral_LeavesNothingOnDisk(t *testing.T) {
	saved := &topicsSaved{topics: map[string]bool{}}
	h := newHouse(t, buffstreams.ManagerConfig{Acked: buffstreams.AckedConfig{Dedupe: saved}})
	pub := h.newPublisher(t, func(c *buffstreams.PublisherConfig) { c.Confirm = buffstreams.ConfirmHandled })
	messages := subscribe(t, h.newSubscriber(t, ephemeral), h.topic("reply"))
	ordinary := subscribe(t, h.newSubscriber(t, nil), h.topic("ordinary"))
	for topic, messages := range map[string]<-chan *message.Message{"reply": messages, "ordinary": ordinary} {
		result := later(func() error { return pub.Publish(h.topic(topic), newMessage("x")) })
		receiveAcked(t, messages, 1)
		require.NoError(t, requireResult(t, result))
	}
	require.True(t, saved.has("ordinary"))
	require.False(t, saved.has("reply"))
}

// replies is how many reply topics come and go.
const replies = 100_000

func TestEphemeral_ReplyTopicsLeaveNothingBehind(t *testing.T) {
	count := replies
	if testing.Short() || testkit.RaceEnabled {
		count /= 10
	}
	h := newHouse(t, buffstreams.ManagerConfig{Acked: buffstreams.AckedConfig{ForgetAfter: 50 * time.Millisecond}})
	sub, pub := h.newSubscriber(t, ephemeral), h.newPublisher(t, nil)
	request := func(i int) {
		ctx, cancel := context.WithCancel(context.Background())
		topic := h.topic(fmt.Sprintf("reply-%d", i))
		messages, err := sub.Subscribe(ctx, topic)
		if assert.NoError(t, err) && assert.NoError(t, pub.Publish(topic, newMessage("x"))) {
			(<-messages).Ack()
		}
		cancel()
		_, open := <-messages
		assert.False(t, open)
	}
	ask := func(from, to int) {
		var wg sync.WaitGroup
		for g := range 4 {
			wg.Go(func() {
				for i := from + g; i < to; i += 4 {
					request(i)
				}
			})
		}
		wg.Wait()
	}
	ask(0, count/10) // maps and buffers get their size
	before := settledHeap(t)
	ask(count/10, count)
	after := settledHeap(t)
	perTopic := (float64(after) - float64(before)) / float64(count)
	t.Logf("%d topics: heap %d -> %d KiB, %.1f bytes a topic", count, before>>10, after>>10, perTopic)
	require.Less(t, perTopic, 20.0)
}

const (
	settledPolls = 10       // of 20 ms: longer than ForgetAfter and a tick
	heapStep     = 64 << 10 // bytes; less is noise
)

// settledHeap waits until the live heap gets smaller no more: what is remembered for a while was forgotten.
func settledHeap(t *testing.T) uint64 {
	t.Helper()
	least, since := uint64(math.MaxUint64), 0
	require.Eventually(t, func() bool {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		if since++; m.HeapAlloc+heapStep < least {
			since = 0
		}
		least = min(least, m.HeapAlloc)
		return since >= settledPolls
	}, patience, 20*time.Millisecond)
	return least
}
