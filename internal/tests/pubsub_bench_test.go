package tests

import (
	"context"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/pubsub/tests"
	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
)

func newPubSub(b *testing.B, confirm buffstreams.Confirm, inFlight int) *buffstreams.PubSub {
	b.Helper()
	ps, err := buffstreams.NewPubSub(buffstreams.PubSubConfig{
		Manager:    buffstreams.ManagerConfig{Hooks: benchHooks()},
		Publisher:  buffstreams.PublisherConfig{Confirm: confirm},
		Subscriber: buffstreams.SubscriberConfig{MaxInFlight: inFlight},
	}, nil)
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, ps.Close()) })
	return ps
}

// BenchmarkSubscriber is Watermill's benchmark of a Pub/Sub.
func BenchmarkSubscriber(b *testing.B) {
	tests.BenchSubscriber(b, func(int) (message.Publisher, message.Subscriber) {
		ps := newPubSub(b, buffstreams.ConfirmEnqueued, 1)
		return ps, ps
	})
}

// BenchmarkThroughput counts 110-byte messages from Publish to Ack, one publishing goroutine.
func BenchmarkThroughput(b *testing.B) {
	levels := map[string]buffstreams.Confirm{
		"Enqueued": buffstreams.ConfirmEnqueued, "Received": buffstreams.ConfirmReceived,
	}
	for name, confirm := range levels {
		for _, inFlight := range []int{1, 256} {
			for _, batch := range []int{1, 100} {
				b.Run(name+"/inflight="+strconv.Itoa(inFlight)+"/batch="+strconv.Itoa(batch), func(b *testing.B) {
					benchThroughput(b, newPubSub(b, confirm, inFlight), batch, 110)
				})
			}
		}
	}
}

// BenchmarkLarge counts large messages from Publish to Ack, one publishing goroutine that uses one buffer again.
func BenchmarkLarge(b *testing.B) {
	for _, size := range []int{16 << 10, 64 << 10, 1<<20 - 100} {
		b.Run(strconv.Itoa(size>>10)+"KiB", func(b *testing.B) {
			b.SetBytes(int64(size))
			benchThroughput(b, newPubSub(b, buffstreams.ConfirmEnqueued, 256), 1, size)
		})
	}
}

func benchThroughput(b *testing.B, ps *buffstreams.PubSub, batch, size int) {
	messages, err := ps.Subscribe(context.Background(), "bench")
	require.NoError(b, err)
	payload := make([]byte, size)
	began := cpuTime()
	b.ReportAllocs()
	b.ResetTimer()
	go func() {
		for sent := 0; sent < b.N; {
			msgs := make([]*message.Message, 0, batch)
			for ; len(msgs) < batch && sent < b.N; sent++ {
				msgs = append(msgs, message.NewMessage(watermill.NewUUID(), payload))
			}
			if err := ps.Publish("bench", msgs...); err != nil {
				b.Error(err)
				return
			}
		}
	}()
	for range b.N {
		(<-messages).Ack()
	}
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msgs/s")
	b.ReportMetric(float64(cpuTime()-began)/float64(b.N), "cpu-ns/op")
}

// cpuTime is what the process has used so far: unlike the time that passes, it hardly depends on what else runs.
func cpuTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
