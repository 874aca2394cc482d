package sender

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/acked/acktest"
	"github.com/buffstreams/watermill-buffstreams/internal/flow"
	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
)

// What waits for a peer that is away gets half of the memory. When the peer is there it gets more, at once, though the peer
// takes nothing yet.
func TestSender_APeerThatIsThereGetsMoreMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := testkit.NewNetwork()
		network.SetDown(true)
		s := start(t, Config{MaxMessageSize: maxMessage, Dial: network.Dial, Backoff: each(time.Second), Budget: flow.NewBudget(4000)})
		s.Dial()
		synctest.Wait()
		message := string(make([]byte, 500))
		done := make(chan error, 1)
		go func() { // ends with the room, or the Sender
			_, _, err := s.Publish(context.Background(), "a", acktest.BatchOf(t, message, message, message, message, message, message), 0, 0)
			done <- err
		}()
		synctest.Wait()
		require.Empty(t, done)
		require.Equal(t, 1, inLine(s))
		network.SetDown(false)
		conn := accept(network)
		synctest.Wait()
		require.Empty(t, done, "it has not greeted")
		say(t, conn, welcome())
		synctest.Wait()
		require.Len(t, done, 1)
		require.NoError(t, <-done)
	})
}
