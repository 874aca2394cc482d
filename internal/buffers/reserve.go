package buffers

import (
	"runtime/debug"
	"time"
)

const (
	reserveBytes = 16 << 20 // as much as a topic's window by default
	// leastLimit is the smallest GOMEMLIMIT with which there is a reserve: it counts against that.
	leastLimit = 512 << 20
	// A process that hands out flowBytes within flowTime is busy.
	flowBytes = 1 << 20
	flowTime  = 100 * time.Millisecond
)

// reserve is memory that a busy process holds and nobody uses. One that only passes messages on has a heap of a few MiB: the
// collector, which begins anew whenever the heap has doubled, would take up to half of its time. The price is that the heap
// may grow by as much again.
type reserve struct {
	memory []byte
	flow   int       // handed out since began
	began  time.Time // when flow began to count
	busy   bool      // since the last look
}

// count notes that so many bytes are handed out, and tells whether that calls for a look at the time, with flowed.
func (r *reserve) count(bytes int) (much bool) {
	r.flow += bytes
	return r.flow >= flowBytes
}

// flowed takes the reserve if what was counted took little time, and tells whether it is held.
func (r *reserve) flowed(now time.Time) (held bool) {
	busy := now.Sub(r.began) < flowTime
	r.flow, r.began = 0, now
	r.busy = r.busy || busy
	if busy && r.memory == nil && debug.SetMemoryLimit(-1) >= leastLimit {
		r.memory = make([]byte, reserveBytes)
	}
	return r.memory != nil
}

// look lets go of the memory unless the process was busy since the last time, and tells whether it is held.
func (r *reserve) look() (held bool) {
	if !r.busy {
		r.memory = nil
	}
	r.busy = false
	return r.memory != nil
}
