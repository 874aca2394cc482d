package flush

import (
	"sync"
	"sync/atomic"
)

// keptWorkers is how many goroutines of a pool stay when they have nothing to do.
const keptWorkers = 4

// Workers is a pool of goroutines that Flushers share. A few of them stay when they are idle, as the stack of a new one
// would have to grow first, at every message of a conversation. A nil *Workers starts a new goroutine each time.
type Workers struct {
	jobs chan *Flusher // without a buffer: only an idle worker receives
	idle atomic.Int32
	stop chan struct{}
	wg   sync.WaitGroup
}

// NewWorkers returns a pool that has no goroutine yet. Close ends it.
func NewWorkers() *Workers { return &Workers{jobs: make(chan *Flusher), stop: make(chan struct{})} }

// run runs a Flusher in an idle goroutine, or in a new one if none is idle.
func (w *Workers) run(f *Flusher) {
	if w == nil {
		go f.run() // ends when nothing is left to flush; Flusher.Close waits for it
		return
	}
	select {
	case w.jobs <- f:
	default:
		w.wg.Go(func() { w.work(f) }) // ends when enough others are idle, or with Close, which waits for it
	}
}

func (w *Workers) work(f *Flusher) {
	for {
		f.run()
		if w.idle.Add(1) > keptWorkers {
			w.idle.Add(-1)
			return
		}
		select {
		case f = <-w.jobs:
			w.idle.Add(-1)
		case <-w.stop:
			return
		}
	}
}

// Close ends the goroutines and waits for them. Every Flusher that uses the pool must be closed before. It is called
// once.
func (w *Workers) Close() {
	close(w.stop)
	w.wg.Wait()
}
