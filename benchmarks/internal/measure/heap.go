package measure

import (
	"runtime"
	"runtime/metrics"
	"sync"
	"time"
)

// Heap returns the bytes of live objects, after a collection.
func Heap() int64 {
	runtime.GC()
	runtime.GC() // what finalizers and pools held the first time
	return objects()
}

func objects() int64 {
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(sample)
	return int64(sample[0].Value.Uint64())
}

// HeapWatch looks every few milliseconds at what the heap holds, garbage included.
type HeapWatch struct {
	quit chan struct{}
	wg   sync.WaitGroup
	peak int64
}

// WatchHeap begins to look, until Peak.
func WatchHeap() *HeapWatch {
	w := &HeapWatch{quit: make(chan struct{})}
	w.wg.Go(w.run) // ends with Peak
	return w
}

func (w *HeapWatch) run() {
	ticker := time.NewTicker(2 * time.Millisecond)
	defer ticker.Stop()
	for {
		w.peak = max(w.peak, objects())
		select {
		case <-ticker.C:
		case <-w.quit:
			w.peak = max(w.peak, objects())
			return
		}
	}
}

// Peak ends the watch and returns the most bytes that it saw. It is called once.
func (w *HeapWatch) Peak() int64 {
	close(w.quit)
	w.wg.Wait()
	return w.peak
}
