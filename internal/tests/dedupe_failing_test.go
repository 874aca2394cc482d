package tests

import (
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/storage/dedupe"
	"github.com/buffstreams/watermill-buffstreams/store"
)

var errBrokenDisk = errors.New("the disk is broken")

// failingStore is a DedupeStore that fails for good with one of its calls of Save. What every fault of a disk leaves in
// the file is for the tests of package dedupe: all of that Save, or nothing of it.
type failingStore struct {
	store.DedupeStore
	at    int  // the Save that fails, from 1 on
	saved bool // that Save has reached the disk all the same

	mu    sync.Mutex
	saves int
}

func (s *failingStore) Save(states map[store.StreamID]store.StreamState) error {
	s.mu.Lock()
	s.saves++
	n := s.saves
	s.mu.Unlock()
	if n < s.at || n == s.at && s.saved {
		if err := s.DedupeStore.Save(states); err != nil || n < s.at {
			return err
		}
	}
	return errBrokenDisk
}

func (s *failingStore) Load(id store.StreamID) (store.StreamState, bool, error) {
	if s.failed() {
		return store.StreamState{}, false, errBrokenDisk
	}
	return s.DedupeStore.Load(id)
}

func (s *failingStore) Forget(id store.StreamID) error {
	if s.failed() {
		return errBrokenDisk
	}
	return s.DedupeStore.Forget(id)
}

func (s *failingStore) failed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.saves >= s.at
}

// alarm tells when the endpoint has said that its store failed.
type alarm struct {
	watermill.NopLogger
	once  sync.Once
	rings chan struct{}
}

func newAlarm() *alarm { return &alarm{rings: make(chan struct{})} }

func (a *alarm) Error(string, error, watermill.LogFields)         { a.once.Do(func() { close(a.rings) }) }
func (a *alarm) With(watermill.LogFields) watermill.LoggerAdapter { return a }

// audit is what handlers saw.
type audit struct {
	mu      sync.Mutex
	at      map[string]store.Position
	handled map[string]int
}

func (a *audit) handle(t *testing.T, messages <-chan *message.Message) {
	for msg := range messages {
		p, ok := buffstreams.PositionFromContext(msg.Context())
		assert.True(t, ok)
		a.mu.Lock()
		a.at[string(msg.Payload)] = p
		a.handled[string(msg.Payload)]++
		a.mu.Unlock()
		msg.Ack()
	}
}

// TestDedupe_FailingStoreWithholdsAcks: a store fails while messages run. From then on nobody is told that a message
// was handled, what was told before is on the disk, and a listener on what the disk has gets all the others again, and
// none of those.
func TestDedupe_FailingStoreWithholdsAcks(t *testing.T) {
	for _, saved := range []bool{false, true} {
		for _, at := range []int{1, 2, 4, 7} {
			t.Run(fmt.Sprintf("at save %d, which reached the disk %v", at, saved), func(t *testing.T) {
				failWhileRunning(t, &failingStore{at: at, saved: saved})
			})
		}
	}
}

func failWhileRunning(t *testing.T, failing *failingStore) {
	const count = 40
	path := filepath.Join(t.TempDir(), "dedupe")
	s, err := dedupe.Open(path)
	require.NoError(t, err)
	failing.DedupeStore = s
	topic := freeAddress(t) + "/orders"

	books, broken := &audit{at: map[string]store.Position{}, handled: map[string]int{}}, newAlarm()
	first, firstDone := listenWith(t, topic, failing, broken, books)
	pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{
		Confirm: buffstreams.ConfirmHandled, PublishTimeout: time.Minute,
		ManagerConfig: buffstreams.ManagerConfig{Acked: quick(buffstreams.AckedConfig{})},
	}, nil)
	require.NoError(t, err)
	var mu sync.Mutex
	told := map[string]bool{}
	var publishing sync.WaitGroup
	for n := range count {
		publishing.Go(func() {
			payload := fmt.Sprint(n)
			assert.NoError(t, pub.Publish(topic, message.NewMessage(watermill.NewUUID(), []byte(payload))))
			mu.Lock()
			told[payload] = true
			mu.Unlock()
		})
	}
	<-broken.rings
	require.NoError(t, first.Close())
	<-firstDone
	require.NoError(t, s.Close())

	s, err = dedupe.Open(path)
	require.NoError(t, err)
	before := map[string]int{}
	mu.Lock()
	books.mu.Lock()
	require.Less(t, len(told), count)
	for payload := range told {
		p := books.at[payload]
		state, ok, err := s.Load(p.StreamID)
		require.NoError(t, err)
		require.True(t, ok && covers(state, p.Sequence), "%s was acked and is not on the disk", payload)
		before[payload] = books.handled[payload]
	}
	books.mu.Unlock()
	mu.Unlock()
	second, secondDone := listenWith(t, topic, s, newAlarm(), books)
	publishing.Wait()
	require.NoError(t, pub.Close())
	require.NoError(t, second.Close())
	<-secondDone
	require.NoError(t, s.Close())
	require.Len(t, books.handled, count, "none is lost")
	for payload, n := range before {
		require.Equal(t, n, books.handled[payload], "%s came again", payload)
	}
}

func covers(state store.StreamState, seq uint64) bool {
	for _, r := range state.Settled {
		if r.First <= seq && seq <= r.Last {
			return true
		}
	}
	return false
}

func listenWith(t *testing.T, topic string, s store.DedupeStore, logger watermill.LoggerAdapter, books *audit) (*buffstreams.Subscriber, <-chan struct{}) {
	sub, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{
		ConsumerGroup: "g", CloseTimeout: 2 * time.Second,
		ManagerConfig: buffstreams.ManagerConfig{Logger: logger, Acked: buffstreams.AckedConfig{Dedupe: s}},
	}, nil)
	require.NoError(t, err)
	messages, err := sub.Subscribe(t.Context(), topic)
	require.NoError(t, err)
	done := make(chan struct{})
	go func() { // ends with the subscriber
		defer close(done)
		books.handle(t, messages)
	}()
	return sub, done
}
