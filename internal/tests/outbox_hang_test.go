package tests

import (
	"context"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
	"github.com/buffstreams/watermill-buffstreams/storage/outbox"
	"github.com/buffstreams/watermill-buffstreams/store"
)

// hangingOutbox is an outbox whose disk answers once hang is closed.
type hangingOutbox struct {
	*outbox.Outbox
	since time.Time
	hang  chan struct{}
}

func (h *hangingOutbox) Append(ctx context.Context, k store.Key, messages ...[]byte) (uint64, error) {
	select {
	case <-h.hang:
		return h.Outbox.Append(ctx, k, messages...)
	case <-ctx.Done():
		return 0, &store.UnconfirmedError{First: 1, Count: len(messages), Err: ctx.Err()}
	}
}

func (h *hangingOutbox) Ready(context.Context) error {
	select {
	case <-h.hang:
		return nil
	default:
		return &store.NotReadyError{Outbox: h.Name(), Reasons: []error{&store.SlowDiskError{Since: h.since}}}
	}
}

// unanswered dials a peer that does not answer.
func unanswered(ctx context.Context, _, _ string) (net.Conn, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// TestOutboxHang_PublishEndsInItsTimeAndSaysWhy: a disk that does not answer holds calls up for PublishTimeout at most; a line
// says why while they wait, and their error when they have.
func TestOutboxHang_PublishEndsInItsTimeAndSaysWhy(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		disk, err := outbox.Open(outbox.Config{Dir: dir})
		require.NoError(t, err)
		box := &hangingOutbox{Outbox: disk, since: time.Now(), hang: make(chan struct{})}
		log := testkit.NewLog()
		publisher := func(context bool, log watermill.LoggerAdapter) *buffstreams.Publisher {
			pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{
				Outbox: box, PublishContext: context, PublishTimeout: 20 * time.Second, CloseTimeout: time.Second,
				ManagerConfig: buffstreams.ManagerConfig{CloseTimeout: time.Second, Dial: unanswered},
			}, log)
			require.NoError(t, err)
			return pub
		}
		pub, hasty := publisher(false, log), publisher(true, watermill.NopLogger{})
		patient, hurried := newMessage("patient"), newMessage("hurried")
		ctx, hurry := context.WithCancel(t.Context())
		hurried.SetContext(ctx)
		type result struct {
			err  error
			took time.Duration
		}
		publish := func(pub *buffstreams.Publisher, m *message.Message) chan result {
			ended, began := make(chan result, 1), time.Now()
			go func() { err := pub.Publish("127.0.0.1:1/orders", m); ended <- result{err, time.Since(began)} }() // ends with PublishTimeout
			return ended
		}
		slow, other, fast := publish(pub, patient), publish(pub, newMessage("other")), publish(hasty, hurried)
		time.Sleep(900 * time.Millisecond)
		synctest.Wait()
		require.Empty(t, log.Lines, "a write may take a while")
		time.Sleep(1200 * time.Millisecond)
		synctest.Wait()
		require.Len(t, log.Lines, 1)
		line := <-log.Lines
		require.Equal(t, "Publish has waited for more than a second", line.Msg)
		require.EqualValues(t, 2, line.Fields["calls"])
		require.Contains(t, line.Fields["reason"], "a write to the disk has been under way since")
		require.Contains(t, line.Fields["outbox"], dir)

		hurry()
		ended := <-fast
		require.ErrorIs(t, ended.err, context.Canceled)
		require.Less(t, ended.took, 3*time.Second, "its context counts")
		ended = <-slow
		require.LessOrEqual(t, ended.took, 20*time.Second)
		require.GreaterOrEqual(t, ended.took, 18*time.Second)
		require.ErrorIs(t, ended.err, buffstreams.ErrTimeout)
		require.ErrorAs(t, ended.err, new(*store.SlowDiskError))
		var failed *buffstreams.PublishError
		require.ErrorAs(t, ended.err, &failed)
		require.Equal(t, []*message.Message{patient}, failed.Unknown, "the disk can have it")
		require.ErrorIs(t, (<-other).err, buffstreams.ErrTimeout)

		close(box.hang)
		require.NoError(t, pub.Publish("127.0.0.1:1/orders", newMessage("later")))
		require.Empty(t, log.Lines, "it is said once")
		require.NoError(t, hasty.Close())
		require.NoError(t, pub.Close())
		require.NoError(t, disk.Close())
	})
}
