// Package buffers reuses memory: of retransmit buffers, of messages that wait for their consumers, of large messages
// between the Marshaler and the socket, and of readers. It is safe for concurrent use.
//
// Unlike a sync.Pool it does not drop buffers at a garbage collection, of which a process that only passes messages on
// has hundreds a second, but when they were not needed for a while.
package buffers

import (
	"math/bits"
	"slices"
	"sync"
	"time"
)

const (
	minSize  = 512                    // of a buffer that is kept, in bytes
	maxBytes = 32 << 20               // of all free buffers together: as much as two full windows
	idleTime = 500 * time.Millisecond // a buffer that was not needed for so long is dropped

	// There are so many sizes from a power of two to the next, so that hardly more than a quarter of a buffer is
	// wasted.
	steps = 4
)

// sizeClass has the free buffers of one size. The first unused of them were not needed since the last sweep.
type sizeClass struct {
	buffers [][]byte
	unused  int
}

// freeList has all free buffers.
type freeList struct {
	mu         sync.Mutex // guards the fields below
	classes    [bits.UintSize * steps]sizeClass
	bytes      int
	sweepTimer *time.Timer // for the next sweep; nil while there are no buffers
}

var free freeList

// Get returns an empty buffer with room for n bytes.
func Get(n int) []byte {
	if n < minSize {
		return make([]byte, 0, n)
	}
	size, class := classOf(n)
	if buf := free.get(class); buf != nil {
		return buf
	}
	return make([]byte, 0, size)
}

// Put frees a buffer, which the caller and others must not use any more. It may keep the memory for a later Get.
func Put(buf []byte) {
	if cap(buf) < minSize {
		return
	}
	if size, class := classOf(cap(buf)); size == cap(buf) {
		free.put(buf[:0], class)
	}
}

// classOf returns the size of the smallest buffer with room for n bytes, where n is minSize at least, and the index of
// its class.
func classOf(n int) (size, class int) {
	e := bits.Len(uint(n - 1))       // below 1<<e, and above half of that
	base, step := 1<<(e-1), 1<<(e-3) // steps of a quarter
	k := (n - base + step - 1) / step
	return base + k*step, e*steps + k - 1
}

func (l *freeList) get(class int) []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	at := &l.classes[class]
	n := len(at.buffers)
	if n == 0 {
		return nil
	}
	buf := at.buffers[n-1] // the last one used
	at.buffers[n-1] = nil
	at.buffers = at.buffers[:n-1]
	at.unused = min(at.unused, n-1)
	l.bytes -= cap(buf)
	return buf
}

func (l *freeList) put(buf []byte, class int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.bytes+cap(buf) > maxBytes {
		return
	}
	at := &l.classes[class]
	at.buffers = append(at.buffers, buf)
	l.bytes += cap(buf)
	l.scheduleSweepLocked()
}

// scheduleSweepLocked makes sweeps come until no buffer is left. The caller must hold mu.
func (l *freeList) scheduleSweepLocked() {
	if l.sweepTimer == nil {
		l.sweepTimer = time.AfterFunc(idleTime, l.sweep)
	}
}

// sweep drops the buffers that were not needed since the last sweep. The timer calls it, on a goroutine of its own.
func (l *freeList) sweep() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.classes {
		at := &l.classes[i]
		for _, buf := range at.buffers[:at.unused] {
			l.bytes -= cap(buf)
		}
		at.buffers = slices.Delete(at.buffers, 0, at.unused)
		if at.unused = len(at.buffers); at.unused == 0 {
			at.buffers = nil
		}
	}
	if l.sweepTimer = nil; l.bytes > 0 {
		l.scheduleSweepLocked()
	}
}
