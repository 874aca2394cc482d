// Package flush writes out what has gathered: many callers ask for a flush, and one goroutine at a time makes it.
package flush

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
)

// The states of a Flusher.
const (
	idle     int32 = iota
	flushing       // flush runs
	kicked         // flush will begin: there was a kick since it last began
	closed
)

// yields is how often a Flusher yields the processor before it flushes: fewer make more and smaller writes, more delay
// them for nothing. See docs/performance.md.
const yields = 3

// Flusher calls a flush function, one call at a time, in a goroutine that it has only while there is something to
// flush: an idle connection costs none, and kicks that arrive before flush begins cost one atomic load. Its methods are
// safe for concurrent use.
type Flusher struct {
	flush   func()
	workers *Workers
	state   atomic.Int32
	closing atomic.Bool
	done    chan struct{} // closed when state becomes closed

	syncing atomic.Bool     // there are syncs
	mu      sync.Mutex      // guards syncs
	syncs   []chan struct{} // to be closed after the flush that begins next
}

// New returns a Flusher that runs in the goroutines of workers, or in a new one each time if workers is nil. The flush
// function may block and may call Kick, but not Close.
func New(workers *Workers, flush func()) *Flusher {
	return &Flusher{flush: flush, workers: workers, done: make(chan struct{})}
}

// Kick makes sure that flush begins after this call, unless the Flusher is closed. It does not block.
func (f *Flusher) Kick() {
	for {
		switch f.state.Load() {
		case kicked, closed:
			return
		case flushing:
			if f.state.CompareAndSwap(flushing, kicked) {
				return
			}
		case idle:
			if f.state.CompareAndSwap(idle, kicked) {
				f.workers.run(f)
				return
			}
		}
	}
}

// run flushes until there was no kick since flush last began.
func (f *Flusher) run() {
	for {
		// A goroutine that is about to produce more goes first, so that its bytes ride on the same write. If there is
		// none, a yield returns at once.
		for range yields {
			runtime.Gosched()
		}
		f.state.Store(flushing)
		syncs := f.takeSyncs()
		f.flush()
		for _, flushed := range syncs {
			close(flushed)
		}
		if f.state.CompareAndSwap(flushing, idle) {
			if f.closing.Load() {
				f.closeIfIdle()
			}
			return
		}
	}
}

// Sync waits until a flush that began after this call has ended, the Flusher is closed, or ctx is done.
func (f *Flusher) Sync(ctx context.Context) {
	flushed := make(chan struct{})
	f.mu.Lock()
	f.syncs = append(f.syncs, flushed)
	f.syncing.Store(true)
	f.mu.Unlock()
	f.Kick()
	select {
	case <-flushed:
	case <-f.done:
	case <-ctx.Done():
	}
}

func (f *Flusher) takeSyncs() []chan struct{} {
	if !f.syncing.Load() {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	syncs := f.syncs
	f.syncs = nil
	f.syncing.Store(false)
	return syncs
}

func (f *Flusher) closeIfIdle() {
	if f.state.CompareAndSwap(idle, closed) {
		close(f.done)
	}
}

// Close waits until flush has run for every earlier Kick and its goroutine is done, and makes later calls of Kick do
// nothing. If flush writes to a connection that can block, close that first. Close may be called more than once.
func (f *Flusher) Close() {
	f.closing.Store(true)
	f.closeIfIdle()
	<-f.done
}
