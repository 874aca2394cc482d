package pool

import (
	"fmt"
	"net"
	"time"
)

const (
	// writeChunk is what one system call gets: more does not make it cheaper,
	// and WriteTimeout then bounds a stall, not the time of a large buffer.
	writeChunk = 64 << 10

	// discardLimit bounds what a Writer reads of a peer that sends anything, in
	// order to notice its end. BuffStreams listeners never send.
	discardLimit = 64 << 10

	provider = "buffstreams" // the log field of that name
)

// sendLoop owns the connection: it alone writes and replaces it.
func (w *Writer) sendLoop() {
	defer w.wg.Done()
	defer close(w.stopped)
	for w.nextBatch() {
		conn, err := w.connection()
		switch {
		case err != nil:
			w.failPending(err)
		case conn != nil:
			w.send(conn)
		}
	}
	w.answerReopens(ErrClosed)
	if conn := w.forget(nil); conn != nil {
		_ = conn.Close() // all was written; nothing depends on the result
	}
}

// nextBatch waits until there is something to send, or a connection to open,
// and returns false when the Writer is closed and nothing is left.
func (w *Writer) nextBatch() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for {
		switch {
		case w.unsent < len(w.batch):
			return true
		case len(w.pending) > 0:
			w.batch, w.pending = w.pending, w.batch[:0]
			w.unsent = 0
			if w.waiting > 0 {
				w.room.Broadcast()
			}
			return true
		case w.closed:
			return false
		case len(w.reopens) > 0:
			return true
		}
		w.idle = true
		w.mu.Unlock()
		<-w.wake
		w.mu.Lock()
	}
}

// send writes the batch. When it fails half way, what is left of the batch
// begins with the frame that was cut.
func (w *Writer) send(conn net.Conn) {
	sent := w.unsent
	var err error
	for sent < len(w.batch) && err == nil {
		if err = w.ctx.Err(); err != nil {
			break // Close gave up, perhaps before this connection was known to it
		}
		chunk := w.batch[sent:min(sent+writeChunk, len(w.batch))]
		if w.cfg.WriteTimeout > 0 {
			_ = conn.SetWriteDeadline(time.Now().Add(w.cfg.WriteTimeout)) // a failure shows in Write
		}
		var n int
		n, err = conn.Write(chunk)
		sent += n
	}
	whole := len(w.batch) - w.unsent
	if err != nil {
		whole = forEachFrame(w.codec, w.batch[w.unsent:sent], func([]byte) bool { return true })
	}
	w.unsent += whole
	if whole > 0 {
		w.restartAttempts()
	}
	w.mu.Lock()
	w.settle(whole)
	w.mu.Unlock()
	if err != nil {
		w.lastErr = fmt.Errorf("pool: write to %s: %w", quoteAddress(w.cfg.Address), err)
		w.lost(conn, err)
	}
}

// settle counts bytes of frames as sent or failed and ends the Flush calls that
// waited for them. It wants mu.
func (w *Writer) settle(n int) {
	w.settled += uint64(n)
	if len(w.flushes) == 0 {
		return
	}
	kept := w.flushes[:0]
	for _, f := range w.flushes {
		if f.target <= w.settled {
			close(f.done)
		} else {
			kept = append(kept, f)
		}
	}
	clear(w.flushes[len(kept):])
	w.flushes = kept
}
