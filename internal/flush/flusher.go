package flush

import (
	"runtime"
	"sync/atomic"
)

// The states of a flusher.
const (
	flushIdle    int32 = iota
	flushRunning       // somebody flushes
	flushAgain         // somebody flushes, and it has been kicked since that last began
	flushClosed
)

// yields is how often a flusher steps back before it flushes: fewer make more and smaller writes, more delay them for
// nothing. See docs/performance.md.
const yields = 3

// flusher runs a flush function in a goroutine that it has only while there is something to flush: an idle connection
// costs none, and kicks that arrive while it runs cost one atomic load.
type Flusher struct {
	flush   func()
	workers *Workers
	state   atomic.Int32
	closing atomic.Bool
	done    chan struct{} // closed with flushClosed
}

func New(crew *Workers, flush func()) *Flusher {
	return &Flusher{flush: flush, workers: crew, done: make(chan struct{})}
}

// kick makes sure that flush begins after this call.
func (f *Flusher) Kick() {
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
				f.workers.run(f)
				return
			}
		}
	}
}

// rest ends a flush, unless there was another kick.
func (f *Flusher) rest() bool {
	if !f.state.CompareAndSwap(flushRunning, flushIdle) {
		return false
	}
	if f.closing.Load() {
		f.end()
	}
	return true
}

func (f *Flusher) run() {
	for {
		// Whoever is about to produce more goes first: it then rides on the same write. Where nobody is, this is no wait.
		for range yields {
			runtime.Gosched()
		}
		f.state.Store(flushRunning)
		f.flush()
		if f.rest() {
			return
		}
	}
}

// end closes a flusher that is idle.
func (f *Flusher) end() {
	if f.state.CompareAndSwap(flushIdle, flushClosed) {
		close(f.done)
	}
}

// close refuses further kicks and waits for the goroutine's end. Close the connection that flush writes to first, so that
// it cannot block. It may be called more than once.
func (f *Flusher) Close() {
	f.closing.Store(true)
	f.end()
	<-f.done
}
