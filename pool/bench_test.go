package pool

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
)

// benchmarkPlain sends b.N messages from some goroutines through one Writer to a callback, and ends when the callback
// has seen them all.
func benchmarkPlain(b *testing.B, goroutines, size int) {
	var received atomic.Int64
	all := make(chan struct{})
	total := int64(b.N)
	l := startListener(b, ListenerConfig{Callback: func(m []byte) error {
		if n := received.Add(1); n == total {
			close(all)
		}
		return nil
	}})
	w := dialWriterTo(b, l, WriterConfig{})
	message := make([]byte, size)
	b.SetBytes(int64(size))
	b.ReportAllocs()
	b.ResetTimer()
	var wg sync.WaitGroup
	for g := range goroutines {
		n := b.N / goroutines
		if g == 0 {
			n += b.N % goroutines
		}
		wg.Go(func() {
			for range n {
				if _, err := w.Write(message); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if err := w.Flush(context.Background()); err != nil {
		b.Fatal(err)
	}
	<-all
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds()/1e6, "Mmsg/s")
}

func BenchmarkPlain1(b *testing.B)  { benchmarkPlain(b, 1, 110) }
func BenchmarkPlain16(b *testing.B) { benchmarkPlain(b, 16, 110) }
