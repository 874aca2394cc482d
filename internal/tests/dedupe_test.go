package tests

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/pool"
	"github.com/buffstreams/watermill-buffstreams/storage/dedupe"
	"github.com/buffstreams/watermill-buffstreams/store"
)

// TestDedupe_AcksThatTheRestartSwallowed: handlers ack while the network is down, then the subscriber restarts. Its
// publisher does not know, and resends. With a store nothing comes twice; without one everything does.
func TestDedupe_AcksThatTheRestartSwallowed(t *testing.T) {
	t.Run("with a store", func(t *testing.T) {
		known, err := dedupe.Open(filepath.Join(t.TempDir(), "dedupe"))
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, known.Close()) })
		require.Equal(t, []string{"last"}, afterSwallowedAcks(t, known, 1))
	})
	t.Run("without one", func(t *testing.T) {
		require.Equal(t, append(payloads(newMessages(10)), "last"), afterSwallowedAcks(t, nil, 11))
	})
}

// afterSwallowedAcks returns the first n messages that the restarted subscriber gets.
func afterSwallowedAcks(t *testing.T, known store.DedupeStore, n int) []string {
	topic := freeAddress(t) + "/a"
	wires := newNetwork(t, 0, 0)
	pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{
		ManagerConfig: buffstreams.ManagerConfig{Dial: wires.dial, Acked: quick(buffstreams.AckedConfig{})},
	}, nil)
	require.NoError(t, err)
	newSubscriber := func() *buffstreams.Subscriber {
		sub, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{
			ConsumerGroup: "g", CloseTimeout: 2 * time.Second,
			ManagerConfig: buffstreams.ManagerConfig{Acked: buffstreams.AckedConfig{Dedupe: known}},
		}, nil)
		require.NoError(t, err)
		return sub
	}
	first := newSubscriber()
	messages := subscribe(t, first, topic)
	require.NoError(t, pub.Publish(topic, newMessages(10)...))
	wires.cut()
	receiveAcked(t, messages, 10)
	require.NoError(t, first.Close())
	second := newSubscriber()
	messages = subscribe(t, second, topic)
	wires.restore()
	require.NoError(t, pub.Publish(topic, newMessage("last")))
	got := receiveAcked(t, messages, n)
	require.NoError(t, pub.Close())
	require.NoError(t, second.Close())
	return got
}

func TestDedupe_PositionIsTheStreams(t *testing.T) {
	h := newHouse(t, buffstreams.ManagerConfig{})
	messages := subscribe(t, h.newSubscriber(t, nil), h.topic("a"))
	require.NoError(t, h.newPublisher(t, nil).Publish(h.topic("a"), newMessages(3)...))
	for i := range 3 {
		msg := receive(t, messages)
		p, ok := buffstreams.PositionFromContext(msg.Context())
		require.True(t, ok)
		require.Equal(t, "a", p.Topic)
		require.EqualValues(t, i+1, p.Sequence)
		msg.Ack()
	}
	_, ok := buffstreams.PositionFromContext(context.Background())
	require.False(t, ok)
}

// infoLog keeps what was said at level Info.
type infoLog struct {
	watermill.NopLogger
	mu    sync.Mutex
	lines []string
}

func (l *infoLog) Info(msg string, _ watermill.LogFields) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, msg)
}

func (l *infoLog) With(watermill.LogFields) watermill.LoggerAdapter { return l }

func (l *infoLog) said(text string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.ContainsFunc(l.lines, func(line string) bool { return strings.Contains(line, text) })
}

// TestDedupe_ReportsWhatWasForgotten: the receiver's memory of publishers is bounded; when it forgets one, and when a
// forgotten one returns, its log says so.
func TestDedupe_ReportsWhatWasForgotten(t *testing.T) {
	logger := &infoLog{}
	h := newHouse(t, buffstreams.ManagerConfig{Logger: logger, Acked: buffstreams.AckedConfig{MaxPublishers: 1}})
	messages := subscribe(t, h.newSubscriber(t, nil), h.topic("a"))
	wires := newNetwork(t, 0, 0)
	outsider := func(dial pool.DialFunc) *buffstreams.Publisher {
		pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{
			Confirm:       buffstreams.ConfirmHandled,
			ManagerConfig: buffstreams.ManagerConfig{Dial: dial, Acked: quick(buffstreams.AckedConfig{})},
		}, nil)
		require.NoError(t, err)
		t.Cleanup(func() { _ = pub.Close() })
		return pub
	}
	publish := func(pub *buffstreams.Publisher) {
		result := later(func() error { return pub.Publish(h.topic("a"), newMessage("x")) })
		receiveAcked(t, messages, 1)
		require.NoError(t, requireResult(t, result))
	}
	first := outsider(wires.dial)
	publish(first)
	wires.cut() // the first is idle now, and away
	second := outsider(nil)
	publish(second)
	require.True(t, logger.said("were forgotten"))
	require.NoError(t, second.Close())
	wires.restore()
	require.False(t, logger.said("is not remembered"))
	publish(first)
	require.True(t, logger.said("is not remembered"))
}
