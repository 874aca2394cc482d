package engines_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/engines"
)

// TestEngine_LeavesNothingBehind: after Close no goroutine is left, whatever the subscription had in hand.
func TestEngine_LeavesNothingBehind(t *testing.T) {
	dir, err := os.MkdirTemp("", "eng")
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	for _, url := range []string{
		"gochannel:?group=g&max_in_flight=2&nack_delay=1h&nack_delay_max=1h&close_timeout=10ms",
		"unix://" + filepath.Join(dir, "s") + "?group=g&max_in_flight=2&nack_delay=1h&nack_delay_max=1h&close_timeout=100ms",
	} {
		none := goleak.IgnoreCurrent()
		e, err := engines.Open(t.Context(), url)
		require.NoError(t, err)
		sub, err := e.Subscriber()
		require.NoError(t, err)
		messages, err := sub.Subscribe(context.Background(), "t")
		require.NoError(t, err)
		for _, id := range []string{"acked", "nacked", "held"} {
			require.NoError(t, e.Publisher().Publish("t", message.NewMessage(id, nil)))
		}
		(<-messages).Ack()
		(<-messages).Nack()
		held := <-messages
		_ = e.Close() // this library says that a message is left
		<-held.Context().Done()
		goleak.VerifyNone(t, none)
	}
}

// What is left at Close is said once, though the Publisher and its Manager both had it.
func TestEngine_SaysOnceWhatIsNotDelivered(t *testing.T) {
	e, err := engines.Open(t.Context(), "unix://"+filepath.Join(t.TempDir(), "s")+"?confirm=enqueued&close_timeout=10ms")
	require.NoError(t, err)
	for _, id := range []string{"a", "b"} {
		require.NoError(t, e.Publisher().Publish("t", message.NewMessage(id, nil)))
	}
	err = e.Close()
	var left *buffstreams.UndeliveredError
	require.ErrorAs(t, err, &left)
	require.Equal(t, 2, left.Count)
	require.Equal(t, left.Error(), err.Error())
}
