package dedupe

import (
	"fmt"
	"net"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/store"
)

// alarm tells when the endpoint has said that its store failed.
type alarm struct {
	watermill.NopLogger
	once  sync.Once
	rings chan struct{}
}

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

// A store fails while messages run: from then on nobody is told that a message
// was handled, what was told before is on the disk, and a listener on what the
// disk has gets all the others again, and none of those.
func TestAStoreThatFailsWithholdsAcks(t *testing.T) {
	kinds := map[string]fault{
		"power cut": {cut: true, amount: part}, "no space": {err: syscall.ENOSPC, amount: part},
		"input/output": {err: syscall.EIO, amount: none}, "fsync": {sync: true},
	}
	for kind, f := range kinds {
		for _, op := range []int{1, 4, 9, 14} {
			f.op = op
			t.Run(fmt.Sprintf("%s at write %d", kind, op), func(t *testing.T) { failWhileRunning(t, f) })
		}
	}
}

func failWhileRunning(t *testing.T, f fault) {
	const count = 40
	dir := scratch(t)
	s, err := Open(filepath.Join(dir, "dedupe"))
	require.NoError(t, err)
	d := attach(t, s, uint64(f.op))
	d.fault = f
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	topic := ln.Addr().String() + "/orders"
	require.NoError(t, ln.Close())

	books, broken := &audit{at: map[string]store.Position{}, handled: map[string]int{}}, &alarm{rings: make(chan struct{})}
	first, firstDone := listen(t, topic, s, broken, books)
	pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{
		Confirm: buffstreams.ConfirmHandled, PublishTimeout: time.Minute,
		ManagerConfig: buffstreams.ManagerConfig{Acked: buffstreams.AckedConfig{
			Reconnect: &buffstreams.ReconnectConfig{InitialInterval: time.Millisecond, MaxInterval: 20 * time.Millisecond}}},
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
	d.restore()
	image := d.image()
	_ = s.Close()

	s, err = Open(place(t, dir, image))
	require.NoError(t, err)
	before := map[string]int{}
	mu.Lock()
	books.mu.Lock()
	for payload := range told {
		p := books.at[payload]
		state, ok, err := s.Load(p.StreamID)
		require.NoError(t, err)
		require.True(t, ok && covers(state, p.Sequence), "%s was acked and is not on the disk", payload)
		before[payload] = books.handled[payload]
	}
	books.mu.Unlock()
	mu.Unlock()
	second, secondDone := listen(t, topic, s, &alarm{rings: make(chan struct{})}, books)
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

func listen(t *testing.T, topic string, s *Store, logger watermill.LoggerAdapter, books *audit) (*buffstreams.Subscriber, <-chan struct{}) {
	sub, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{
		ConsumerGroup: "g", CloseTimeout: 50 * time.Millisecond,
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
