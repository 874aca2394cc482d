package pool

import (
	"fmt"
	"net"
	"time"

	"github.com/buffstreams/watermill-buffstreams/internal/netio"
)

// writeChunk is how many bytes one system call gets: more does not make it cheaper, and WriteTimeout then bounds a
// stall, not the time of a large buffer.
const writeChunk = 64 << 10

// sendLoop sends what Writes have not sent themselves. It alone replaces the connection.
func (w *Writer) sendLoop() {
	defer w.ticks.Stop()
	for w.nextBatch() {
		conn, err := w.connect()
		switch {
		case err != nil:
			w.failPending(err)
		case conn != nil:
			w.send(conn, w.writer(conn))
		}
	}
	w.answerReopens(ErrClosed)
	if conn := w.detach(); conn != nil {
		_ = conn.conn.Close() // all was written; nothing depends on the result
		w.tellLost(conn, net.ErrClosed)
	}
}

// writer returns the write of sendLoop, which goes on as long as the peer takes something.
func (w *Writer) writer(conn *outbound) func([]byte) (int, error) {
	if w.cfg.WriteTimeout <= 0 {
		return conn.conn.Write
	}
	return func(b []byte) (int, error) { return netio.WriteN(conn.conn, b, w.cfg.WriteTimeout) }
}

// send writes the batch until write takes less than it was given. After an error the rest of the batch begins with the
// frame that was interrupted. The caller must be the write owner.
func (w *Writer) send(conn *outbound, write func([]byte) (int, error)) {
	sent := w.unsent + w.partial
	var err error
	for full := false; sent < len(w.batch) && err == nil && !full; {
		if err = w.ctx.Err(); err != nil {
			break // Close gave up, perhaps before it could know of this connection
		}
		chunk := w.batch[sent:min(sent+writeChunk, len(w.batch))]
		if w.cfg.WriteTimeout > 0 {
			_ = conn.conn.SetWriteDeadline(time.Now().Add(w.cfg.WriteTimeout)) // a failure shows in Write
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
	w.partial = sent - w.unsent
	if whole > 0 {
		w.restartAttempts()
	}
	w.countSent(whole)
	if err != nil {
		w.lastErr = fmt.Errorf("pool: write to %s: %w", netio.Quote(w.cfg.Address), err)
		w.lost(conn, err)
	}
}

func (w *Writer) countSent(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if n >= filledChunk && w.conn != nil && w.conn.try != nil {
		w.streaming = true
	}
	w.settleLocked(n)
}
