package tests

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/storage/outbox"
	"github.com/buffstreams/watermill-buffstreams/store"
)

// TestOutbox_EndsStreamsThatHoldNothing: one topic for each user, each used once. Neither the outbox nor the receiver keeps
// their streams: not with a clean end, not when they are idle, and not after a crash.
func TestOutbox_EndsStreamsThatHoldNothing(t *testing.T) {
	const topics = 150
	address, seen := freeAddress(t), newSink()
	sub, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{
		ConsumerGroup: "g", ManagerConfig: buffstreams.ManagerConfig{Acked: buffstreams.AckedConfig{MaxStreams: 60}},
	}, nil)
	require.NoError(t, err)
	defer func() { require.NoError(t, sub.Close()) }()
	names := make([]string, topics)
	for i := range names {
		names[i] = fmt.Sprint(address, "/user-", i)
		messages := subscribe(t, sub, names[i])
		go seen.take(messages) // ends with sub
	}
	for _, how := range []string{"clean", "idle"} {
		box := filepath.Join(t.TempDir(), "box")
		for from := 0; from < topics; from += 50 {
			ob, err := outbox.Open(outbox.Config{Dir: box})
			require.NoError(t, err)
			acked := quick(buffstreams.AckedConfig{})
			if how == "idle" {
				acked.ForgetAfter = 50 * time.Millisecond
			}
			pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{
				Outbox: ob, ManagerConfig: buffstreams.ManagerConfig{Acked: acked},
			}, nil)
			require.NoError(t, err)
			for _, topic := range names[from : from+50] {
				require.NoError(t, pub.Publish(topic, newMessage(how+" "+topic)))
			}
			drain(t, pub)
			if how == "idle" {
				require.Eventually(t, func() bool { return len(ob.Streams()) == 0 }, patience, time.Millisecond)
			}
			require.NoError(t, pub.Close())
			require.Empty(t, ob.Streams())
			require.NoError(t, ob.Close())
		}
		got, again := seen.count(how)
		require.Equal(t, []int{topics, 0}, []int{got, again})
	}

	box := filepath.Join(t.TempDir(), "box")
	h := startHost(t, box)
	for _, topic := range names[:50] {
		h.publish(topic, "x", 1, 1)
	}
	drain(t, h.pub)
	h.publish(names[0], "x", 2, 2) // with it, that the others are settled becomes durable
	h.crash()
	h = startHost(t, box)
	require.Eventually(t, func() bool { return len(h.box.Streams()) <= 1 }, patience, time.Millisecond)
}

// TestOutbox_GoesOnAfterAStreamHasEnded: a message comes in the moment in which its stream ends.
func TestOutbox_GoesOnAfterAStreamHasEnded(t *testing.T) {
	ob := openOutbox(t, filepath.Join(t.TempDir(), "box"))
	h := newHouse(t, buffstreams.ManagerConfig{})
	messages := subscribe(t, h.newSubscriber(t, nil), h.topic("a"))
	acked := quick(buffstreams.AckedConfig{})
	acked.ForgetAfter = time.Millisecond
	pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{
		Outbox: ob, ManagerConfig: buffstreams.ManagerConfig{Acked: acked},
	}, nil)
	require.NoError(t, err)
	defer func() { require.NoError(t, pub.Close()) }()
	streams := map[uint64]bool{}
	for i := range 200 {
		require.NoError(t, pub.Publish(h.topic("a"), newMessage(fmt.Sprint(i))))
		for _, s := range ob.Streams() {
			streams[s.ID] = true
		}
		require.Equal(t, []string{fmt.Sprint(i)}, receiveAcked(t, messages, 1))
		if i%20 == 0 {
			require.Eventually(t, func() bool { return len(ob.Streams()) == 0 }, patience, time.Millisecond)
		}
	}
	require.Greater(t, len(streams), 5)
}

// TestOutbox_TellsThePublisherOfWhatItPublished: two publishers are on an outbox, and the one that delivers has no OnFailure,
// or one of its own.
func TestOutbox_TellsThePublisherOfWhatItPublished(t *testing.T) {
	for _, firstHas := range []bool{false, true} {
		h := newHouse(t, buffstreams.ManagerConfig{})
		sub := h.newSubscriber(t, nil)
		messages := subscribe(t, sub, h.topic("a"))
		go ackAll(messages) // ends with sub
		ob := openOutbox(t, t.TempDir())
		told := make(chan string, 10)
		publisher := func(name string, has bool) *buffstreams.Publisher {
			cfg := buffstreams.PublisherConfig{Outbox: ob, Marshaler: buffstreams.RawMarshaler{}}
			if has {
				cfg.OnFailure = func(_ string, encoded []byte, _ error) { told <- name + " " + string(encoded) }
			}
			pub, err := buffstreams.NewPublisher(cfg, nil)
			require.NoError(t, err)
			return pub
		}
		first := publisher("first", firstHas)
		require.NoError(t, first.Publish(h.topic("a"), newMessage("")))
		drain(t, first)
		second := publisher("second", true)
		require.NoError(t, second.Publish(h.topic("a"), newMessage("\xff\xff")))
		require.Equal(t, "second \xff\xff", await(t, told))
		drain(t, second)
		require.NoError(t, second.Close())
		if firstHas {
			require.NoError(t, first.Publish(h.topic("a"), newMessage("\xff\xfe")))
			require.Equal(t, "first \xff\xfe", await(t, told))
			drain(t, first)
		}
		require.NoError(t, first.Close())
		require.Empty(t, told)
	}
}

// TestOutbox_TopicThatIsGoneGoesToOnFailure: replies for which nobody waits do not stay in the outbox, and what comes when
// the topic is there again is delivered.
func TestOutbox_TopicThatIsGoneGoesToOnFailure(t *testing.T) {
	h := newHouse(t, buffstreams.ManagerConfig{})
	sub := h.newSubscriber(t, func(c *buffstreams.SubscriberConfig) { c.Ephemeral, c.ConsumerGroup = true, "" })
	ctx, cancel := context.WithCancel(context.Background())
	messages, err := sub.Subscribe(ctx, h.topic("reply"))
	require.NoError(t, err)
	ob, told := openOutbox(t, t.TempDir()), make(chan string, 100)
	pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{
		Outbox: ob, Marshaler: buffstreams.RawMarshaler{},
		OnFailure: func(_ string, encoded []byte, err error) {
			require.ErrorIs(t, err, buffstreams.ErrTopicGone)
			told <- string(encoded)
		},
		ManagerConfig: buffstreams.ManagerConfig{Acked: quick(buffstreams.AckedConfig{})},
	}, nil)
	require.NoError(t, err)
	defer func() { _ = pub.Close() }()
	raw := func(payload string) *message.Message {
		return newMessage("\x0a" + string(rune(len(payload))) + payload)
	}
	require.NoError(t, pub.Publish(h.topic("reply"), raw("1"), raw("2"), raw("3")))
	receive(t, messages).Ack()
	cancel()
	for range messages { // it closes
	}
	require.NoError(t, pub.Publish(h.topic("reply"), raw("late")))
	drain(t, pub)
	require.GreaterOrEqual(t, len(told), 1)
	last := ""
	for len(told) > 0 {
		last = <-told
	}
	require.Contains(t, last, "late", "in order")
}

// TestOutbox_TopicThatIsGoneNeedsNoOnFailure: what waits for a topic that is gone is dropped, and said in the log, also when it
// is published after the end. It leaves no stream.
func TestOutbox_TopicThatIsGoneNeedsNoOnFailure(t *testing.T) {
	h := newHouse(t, buffstreams.ManagerConfig{})
	sub := h.newSubscriber(t, func(c *buffstreams.SubscriberConfig) { c.Ephemeral, c.ConsumerGroup = true, "" })
	ctx, cancel := context.WithCancel(context.Background())
	messages, err := sub.Subscribe(ctx, h.topic("reply"))
	require.NoError(t, err)
	cancel()
	for range messages { // it closes
	}
	log, ob := &loudLog{}, openOutbox(t, t.TempDir())
	pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{
		Outbox: ob, ManagerConfig: buffstreams.ManagerConfig{Acked: quick(buffstreams.AckedConfig{})},
	}, log)
	require.NoError(t, err)
	require.NoError(t, pub.Publish(h.topic("reply"), newMessage("late"), newMessage("later")))
	drain(t, pub)
	require.Positive(t, log.count("topic is gone"))
	require.NoError(t, pub.Close())
	require.Empty(t, ob.Streams())
}

// TestDedupe_KeepsWhatEachGroupHasSettled: a group does not get again what it has acked, because another has not, through any
// number of restarts of the listener.
func TestDedupe_KeepsWhatEachGroupHasSettled(t *testing.T) {
	t.Parallel()
	const count = 60
	st := openDedupe(t)
	topic := freeAddress(t) + "/a"
	pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{
		ManagerConfig: buffstreams.ManagerConfig{Acked: quick(buffstreams.AckedConfig{})},
	}, nil)
	require.NoError(t, err)
	defer func() { _ = pub.Close() }()
	handled := map[string]map[string]int{"fast": {}, "middle": {}, "slow": {}}
	name := topic[strings.LastIndex(topic, "/")+1:]
	for life, limits := range []map[string]int{ // what each group handles in a life
		{"fast": 20, "middle": 10, "slow": 0}, {"fast": 0, "middle": 20, "slow": 5}, {"fast": 20, "middle": 10, "slow": 35},
		{"fast": 20, "middle": 20, "slow": 20},
	} {
		m, err := buffstreams.NewManager(buffstreams.ManagerConfig{Acked: buffstreams.AckedConfig{
			Dedupe: st, Groups: map[string][]string{name: {"fast", "middle", "slow"}},
		}})
		require.NoError(t, err)
		messages, subs := map[string]<-chan *message.Message{}, []*buffstreams.Subscriber{}
		for group := range handled {
			sub, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{
				Manager: m, ConsumerGroup: group, CloseTimeout: time.Second,
			}, nil)
			require.NoError(t, err)
			messages[group], subs = subscribe(t, sub, topic), append(subs, sub)
		}
		if life < 3 {
			for i := range count / 3 {
				require.NoError(t, pub.Publish(topic, newMessage(fmt.Sprint(life*count/3+i))))
			}
		}
		for group, limit := range limits {
			for range limit {
				msg := receive(t, messages[group])
				handled[group][string(msg.Payload)]++
				msg.Ack()
			}
		}
		for _, sub := range subs { // it waits until the acks are saved
			require.NoError(t, sub.Close())
		}
		require.NoError(t, m.Close())
	}
	for group, payloads := range handled {
		require.Len(t, payloads, count, group)
		for payload, n := range payloads {
			require.Equal(t, 1, n, "%s of %s", payload, group)
		}
	}
}

// TestDedupe_PublishersThatClosedLeaveNothing: neither in the file nor in memory, whether their messages were handled before
// they closed or after.
func TestDedupe_PublishersThatClosedLeaveNothing(t *testing.T) {
	t.Parallel()
	for _, confirm := range []buffstreams.Confirm{buffstreams.ConfirmHandled, buffstreams.ConfirmReceived, buffstreams.ConfirmEnqueued} {
		st := &countingStore{DedupeStore: openDedupe(t), streams: map[store.StreamID]bool{}}
		topic, seen := freeAddress(t)+"/orders", newSink()
		stop := sinkAt(t, seen, st, topic)
		var closing sync.WaitGroup
		for i := range 40 {
			closing.Go(func() {
				pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{Confirm: confirm}, nil)
				require.NoError(t, err)
				require.NoError(t, pub.Publish(topic, newMessage(fmt.Sprint("x ", i))))
				require.NoError(t, pub.Close())
			})
		}
		closing.Wait()
		require.Eventually(t, func() bool { got, _ := seen.count("x"); return got == 40 }, patience, time.Millisecond)
		require.Eventually(t, func() bool { return st.count() == 0 }, patience, time.Millisecond)
		stop()
	}
}

// countingStore knows which streams a DedupeStore has.
type countingStore struct {
	store.DedupeStore
	mu      sync.Mutex
	streams map[store.StreamID]bool
}

func (s *countingStore) Save(states map[store.StreamID]store.StreamState) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id := range states {
		s.streams[id] = true
	}
	return s.DedupeStore.Save(states)
}

func (s *countingStore) Forget(id store.StreamID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.streams, id)
	return s.DedupeStore.Forget(id)
}

func (s *countingStore) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.streams)
}

// TestIdentity_CopyIsFoundOutByOneStreamForAll: the receiver of one topic remembers, that of another has never heard of the
// outbox. Both get the new identity, as either may meet the copy next.
func TestIdentity_CopyIsFoundOutByOneStreamForAll(t *testing.T) {
	one, two := filepath.Join(t.TempDir(), "one"), filepath.Join(t.TempDir(), "two")
	h, topic, seen := newHouse(t, buffstreams.ManagerConfig{}), freeAddress(t)+"/a", newSink()
	sinkAt(t, seen, nil, topic)
	others := subscribe(t, h.newSubscriber(t, nil), h.topic("b"))
	copyTo(t, startHost(t, one).crash(), two)
	a, b := startHost(t, one), startHost(t, two)
	a.publish(topic, "a", 1, 10)
	drain(t, a.pub)
	publisherOf := func() [16]byte {
		b.publish(h.topic("b"), "b", 1, 1)
		msg := receive(t, others)
		p, ok := buffstreams.PositionFromContext(msg.Context())
		require.True(t, ok)
		msg.Ack()
		drain(t, b.pub)
		return p.Publisher
	}
	before := publisherOf() // it has not met the original there
	require.Equal(t, before, publisherOf())
	id := b.box.ID()
	b.publish(topic, "b", 11, 20)
	drain(t, b.pub)
	require.NotEqual(t, id, b.box.ID())
	require.NotEqual(t, before, publisherOf())
	a.publish(topic, "a", 11, 20)
	drain(t, a.pub)
	for name, n := range map[string]int{"a": 20, "b": 10} {
		got, again := seen.count(name)
		require.Equal(t, []int{n, 0}, []int{got, again}, name)
	}
	require.Equal(t, []int{0, 1}, []int{a.says(), b.says()})
}
