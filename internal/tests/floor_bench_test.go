package tests

import (
	"strconv"
	"testing"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
)

// BenchmarkNoTransport is what Watermill's API costs where nothing is sent: a publisher makes messages, another goroutine
// makes a message of each of them, as a receiver has to, hands it to a handler, and sees to the acks in their order. Messages
// change hands in runs, as if they had come in one read.
func BenchmarkNoTransport(b *testing.B) {
	for _, inFlight := range []int{1, 256} {
		b.Run("inflight="+strconv.Itoa(inFlight), func(b *testing.B) {
			runs, out := make(chan []*message.Message, 64), make(chan *message.Message, inFlight)
			began := cpuTime()
			b.ReportAllocs()
			b.ResetTimer()
			go makeMessages(runs, b.N, make([]byte, 110)) // ends when all are made
			go handOver(runs, out, inFlight)              // ends when all are acked
			for msg := range out {
				msg.Ack()
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msgs/s")
			b.ReportMetric(float64(cpuTime()-began)/float64(b.N), "cpu-ns/op")
		})
	}
}

func makeMessages(runs chan<- []*message.Message, count int, payload []byte) {
	defer close(runs)
	for made := 0; made < count; {
		run := make([]*message.Message, 0, 64)
		for ; len(run) < cap(run) && made < count; made++ {
			run = append(run, message.NewMessage(watermill.NewUUID(), payload))
		}
		runs <- run
	}
}

func handOver(runs <-chan []*message.Message, out chan<- *message.Message, inFlight int) {
	defer close(out)
	var flying []*message.Message
	for run := range runs {
		for _, sent := range run {
			if len(flying) == inFlight {
				flying = collectAcks(flying)
			}
			msg := message.NewMessage(sent.UUID, append([]byte(nil), sent.Payload...))
			out <- msg
			flying = append(flying, msg)
		}
	}
	for len(flying) > 0 {
		flying = collectAcks(flying)
	}
}

// collectAcks waits for the first ack, and takes note of those behind it that have come as well.
func collectAcks(flying []*message.Message) []*message.Message {
	<-flying[0].Acked()
	for n := 1; n < len(flying); n++ {
		select {
		case <-flying[n].Acked():
		default:
			return flying[:copy(flying, flying[n:])]
		}
	}
	return flying[:0]
}
