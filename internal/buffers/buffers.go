// Package buffers has memory for large messages, which is used again: between the Marshaler and the socket nothing else
// would be allocated for them. It is safe for concurrent use.
package buffers

import (
	"math/bits"
	"sync"
)

// least is the smallest buffer that is kept.
const least = 4 << 10

// free has buffers by the power of two that they hold.
var free [bits.UintSize]sync.Pool

// Get returns an empty buffer with room for n bytes.
func Get(n int) []byte {
	class := bits.Len(uint(n - 1))
	if buf, ok := free[class].Get().(*[]byte); ok {
		return (*buf)[:0]
	}
	return make([]byte, 0, 1<<class)
}

// Put takes a buffer back of which nobody has a view any more. One that did not come from Get is left to the collector.
func Put(buf []byte) {
	if c := cap(buf); c >= least && c&(c-1) == 0 {
		free[bits.Len(uint(c))-1].Put(&buf)
	}
}
