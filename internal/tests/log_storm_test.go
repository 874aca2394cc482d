package tests

import (
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
)

// loud are the lines that a person sees at the usual levels.
func loud(log *watermill.CaptureLoggerAdapter) []watermill.CapturedMessage {
	all := log.Captured()
	return append(append([]watermill.CapturedMessage{}, all[watermill.ErrorLogLevel]...), all[watermill.InfoLogLevel]...)
}

// TestLog_ManyTopicsOfAPeerThatIsAway: hundreds of calls that wait for one address are a line or two, not hundreds, and none of
// them is an error, as the callers have that.
func TestLog_ManyTopicsOfAPeerThatIsAway(t *testing.T) {
	testkit.CheckLeaks(t)
	log := watermill.NewCaptureLogger()
	pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{
		PublishTimeout: 3 * time.Second, CloseTimeout: time.Millisecond, ManagerConfig: buffstreams.ManagerConfig{CloseTimeout: time.Millisecond},
	}, log)
	require.NoError(t, err)
	away := freeAddress(t)
	var calls sync.WaitGroup
	for i := range 300 {
		calls.Go(func() { // ends with its time
			if err := pub.Publish(fmt.Sprintf("%s/t%d", away, i), newMessage("x")); err == nil {
				t.Error("nothing listens there")
			}
		})
	}
	calls.Wait()
	lines := loud(log)
	require.NotEmpty(t, lines)
	require.LessOrEqual(t, len(lines), 3, "%v", lines)
	var waited int
	for _, l := range lines {
		require.Equal(t, watermill.InfoLogLevel, l.Level, "%v", l)
		if l.Msg == "Publish has waited for more than a second" {
			waited++
			require.NotEmpty(t, l.Fields["reason"])
		}
	}
	require.Equal(t, 1, waited, "%v", lines)
	_ = pub.Close()
}

// TestLog_OfAListenerThatIsHammered: what hostile peers and handlers that nack do a thousand times is no thousand lines.
func TestLog_OfAListenerThatIsHammered(t *testing.T) {
	testkit.CheckLeaks(t)
	log := watermill.NewCaptureLogger()
	h := newHouse(t, buffstreams.ManagerConfig{Logger: log})
	sub, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{Manager: h.manager, NackResendSleep: time.Microsecond, NackResendCap: time.Microsecond}, log)
	require.NoError(t, err)
	messages := subscribe(t, sub, h.topic("a"))
	for range 200 {
		conn, err := net.Dial("tcp", h.address)
		require.NoError(t, err)
		_, _ = conn.Write([]byte("GET / HTTP/1.1\r\n\r\n"))
		require.NoError(t, conn.Close())
	}
	pub := h.newPublisher(t, nil)
	require.NoError(t, pub.Publish(h.topic("a"), newMessage("x")))
	for range 500 {
		receive(t, messages).Nack()
	}
	receive(t, messages).Ack()
	drain(t, pub)
	lines := loud(log)
	require.LessOrEqual(t, len(lines), 3, "%v", lines)
	for _, l := range lines {
		require.Equal(t, watermill.InfoLogLevel, l.Level, "%v", l)
	}
	require.NoError(t, sub.Close())
}
