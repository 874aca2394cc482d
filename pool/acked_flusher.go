package pool

import (
	"runtime"
	"sync/atomic"
)

// The states of a flusher.
const (
	flushIdle    int32 = iota
	flushRunning       // its goroutine lives
	flushAgain         // its goroutine lives and has been kicked since it last began
	flushClosed
)

// yields is how often a flusher steps back before it flushes: fewer make more and smaller writes, more delay them for
// nothing. See docs/performance.md.
const yields = 3

// flusher runs a flush function in a goroutine that it has only while there is something to flush: an idle connection
// costs none, and kicks that arrive while it runs cost one atomic load.
type flusher struct {
	flush   func()
	crew    *crew
	state   atomic.Int32
	closing atomic.Bool
	done    chan struct{} // closed with flushClosed
}

func newFlusher(crew *crew, flush func()) *flusher {
	return &flusher{flush: flush, crew: crew, done: make(chan struct{})}
}

// kick makes sure that flush begins after this call.
func (f *flusher) kick() {
	for {
		switch f.state.Load() {
		case flushAgain, flushClosed:
			return
		case flushRunning:
			if f.state.CompareAndSwap(flushRunning, flushAgain) {
				return
			}
		case flushIdle:
			if f.state.CompareAndSwap(flushIdle, flushAgain) {
				f.crew.run(f)
				return
			}
		}
	}
}

func (f *flusher) run() {
	for {
		// Whoever is about to produce more goes first: it then rides on the same write. Where nobody is, this is no wait.
		for range yields {
			runtime.Gosched()
		}
		f.state.Store(flushRunning)
		f.flush()
		if f.state.CompareAndSwap(flushRunning, flushIdle) {
			break
		}
	}
	if f.closing.Load() {
		f.end()
	}
}

// end closes a flusher that is idle.
func (f *flusher) end() {
	if f.state.CompareAndSwap(flushIdle, flushClosed) {
		close(f.done)
	}
}

// close refuses further kicks and waits for the goroutine's end. Close the connection that flush writes to first, so that
// it cannot block. It may be called more than once.
func (f *flusher) close() {
	f.closing.Store(true)
	f.end()
	<-f.done
}
