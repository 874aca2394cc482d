package pool

import (
	"fmt"
	"net"
	"time"

	"github.com/buffstreams/watermill-buffstreams/internal/netio"
)

const (
	// writeChunk is what one system call gets: more does not make it cheaper,
	// and WriteTimeout then bounds a stall, not the time of a large buffer.
	writeChunk = 64 << 10

	// discardLimit bounds what a Writer reads of a peer that sends anything, in
	// order to notice its end. BuffStreams listeners never send.
	discardLimit = 64 << 10
)

// sendLoop owns the connection: it alone replaces it, and writes unless it lent
// that to a Write.
func (w *Writer) sendLoop() {
	defer w.wg.Done()
	defer close(w.stopped)
	defer w.ticks.Stop()
	for w.nextBatch() {
		conn, err := w.connection()
		switch {
		case err != nil:
			w.failPending(err)
		case conn != nil:
			w.send(conn, conn.Write)
		}
	}
	w.answerReopens(ErrClosed)
	if conn := w.forget(nil); conn != nil {
		_ = conn.Close() // all was written; nothing depends on the result
	}
}

// send writes the batch, until write takes less than it was given. When it
// fails half way, what is left of the batch begins with the frame that was cut.
func (w *Writer) send(conn net.Conn, write func([]byte) (int, error)) {
	sent := w.unsent + w.partly
	var err error
	for full := false; sent < len(w.batch) && err == nil && !full; {
		if err = w.ctx.Err(); err != nil {
			break // Close gave up, perhaps before this connection was known to it
		}
		chunk := w.batch[sent:min(sent+writeChunk, len(w.batch))]
		if w.cfg.WriteTimeout > 0 {
			_ = conn.SetWriteDeadline(time.Now().Add(w.cfg.WriteTimeout)) // a failure shows in Write
		}
		var n int
		n, err = write(chunk)
		sent += n
		full = n < len(chunk)
	}
	whole := len(w.batch) - w.unsent
	if sent < len(w.batch) {
		whole = forEachFrame(w.codec, w.batch[w.unsent:sent], func([]byte) bool { return true })
	}
	w.unsent += whole
	w.partly = sent - w.unsent
	if whole > 0 {
		w.restartAttempts()
	}
	w.mu.Lock()
	w.streams = w.streams || whole >= filledChunk && w.try != nil
	w.settle(whole)
	w.mu.Unlock()
	if err != nil {
		w.lastErr = fmt.Errorf("pool: write to %s: %w", netio.Quote(w.cfg.Address), err)
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
