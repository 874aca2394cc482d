package session

import "github.com/buffstreams/watermill-buffstreams/internal/buffers"

// deferredFree holds the memory of settled messages until no Segment has a view of it: an Ack can arrive while the
// flusher still writes the message.
type deferredFree struct{ buffers [][]byte }

// free makes the memory available for reuse. The segments that Output returned must have been written.
func (d *deferredFree) free() {
	for _, buf := range d.buffers {
		buffers.Put(buf)
	}
	clear(d.buffers)
	d.buffers = d.buffers[:0]
}
