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

// flusher runs a flush function in a goroutine that exists only while there is something to flush: an idle connection
// costs none, and kicks that arrive while it runs cost one atomic load.
type flusher struct {
	flush   func()
	state   atomic.Int32
	closing atomic.Bool
	exited  chan struct{} // receives a value when the goroutine ends after close was called
}

func newFlusher(flush func()) *flusher {
	return &flusher{flush: flush, exited: make(chan struct{}, 1)}
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
				go f.run() // ends by itself when nothing is left to flush; close waits for that
				return
			}
		}
	}
}

func (f *flusher) run() {
	for {
		// Whoever is about to produce more goes first: it then rides on the same write.
		runtime.Gosched()
		f.state.Store(flushRunning)
		f.flush()
		if f.state.CompareAndSwap(flushRunning, flushIdle) {
			break
		}
	}
	if f.closing.Load() {
		select {
		case f.exited <- struct{}{}:
		default:
		}
	}
}

// close refuses further kicks and waits for the goroutine's end. Close the connection that flush writes to first, so that
// it cannot block.
func (f *flusher) close() {
	f.closing.Store(true)
	for f.state.Load() != flushClosed && !f.state.CompareAndSwap(flushIdle, flushClosed) {
		<-f.exited
	}
}
