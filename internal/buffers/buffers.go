// Package buffers has memory that is used again: for runs of messages on their way out, for those that wait for their
// consumers, and for large messages between the Marshaler and the socket. It is safe for concurrent use.
//
// Unlike a sync.Pool it does not forget at every collection, of which a process that only passes messages on has hundreds a
// second, but when it had no use for the memory for a while.
package buffers

import (
	"math/bits"
	"slices"
	"sync"
	"time"
)

const (
	least    = 512                    // the smallest buffer that is kept
	most     = 32 << 20               // what is kept of all of them: as much as two full windows
	idleTime = 500 * time.Millisecond // what was not needed for so long is dropped

	// Buffers have one of four sizes between a power of two and the next, so that hardly more than a quarter is wasted.
	steps = 4
)

// shelf has the free buffers of one size. The first low of them were not needed since the last look.
type shelf struct {
	buffers [][]byte
	low     int
}

// store has all free buffers. mu guards everything.
type store struct {
	mu      sync.Mutex
	shelves [bits.UintSize * steps]shelf
	bytes   int
	timer   *time.Timer // to the next look, while there are any
}

var free store

// Get returns an empty buffer with room for n bytes.
func Get(n int) []byte {
	if n < least {
		return make([]byte, 0, n)
	}
	size, class := fit(n)
	if buf := free.get(class); buf != nil {
		return buf
	}
	return make([]byte, 0, size)
}

// Put takes a buffer back of which nobody has a view any more. One that did not come from Get is left to the collector.
func Put(buf []byte) {
	if cap(buf) < least {
		return
	}
	if size, class := fit(cap(buf)); size == cap(buf) {
		free.put(buf[:0], class)
	}
}

// fit is the size of the smallest buffer with room for n bytes, which is least or more, and its shelf.
func fit(n int) (size, class int) {
	e := bits.Len(uint(n - 1))       // below 1<<e, and above half of that
	base, step := 1<<(e-1), 1<<(e-3) // steps of a quarter
	k := (n - base + step - 1) / step
	return base + k*step, e*steps + k - 1
}

func (s *store) get(class int) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := &s.shelves[class]
	n := len(at.buffers)
	if n == 0 {
		return nil
	}
	buf := at.buffers[n-1] // the last one used
	at.buffers[n-1] = nil
	at.buffers = at.buffers[:n-1]
	at.low = min(at.low, n-1)
	s.bytes -= cap(buf)
	return buf
}

func (s *store) put(buf []byte, class int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bytes+cap(buf) > most {
		return
	}
	at := &s.shelves[class]
	at.buffers = append(at.buffers, buf)
	s.bytes += cap(buf)
	s.watch()
}

// watch has what is not needed dropped, until nothing is left.
func (s *store) watch() {
	if s.timer == nil {
		s.timer = time.AfterFunc(idleTime, s.look)
	}
}

// look drops what was not needed since the last time.
func (s *store) look() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.shelves {
		at := &s.shelves[i]
		for _, buf := range at.buffers[:at.low] {
			s.bytes -= cap(buf)
		}
		at.buffers = slices.Delete(at.buffers, 0, at.low)
		if at.low = len(at.buffers); at.low == 0 {
			at.buffers = nil
		}
	}
	if s.timer = nil; s.bytes > 0 {
		s.watch()
	}
}
