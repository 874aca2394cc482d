package pool

import (
	"time"
)

// writeOwner says who writes to the connection, and so has the fields of Writer that belong to that. Only the owner
// passes the ownership on, with mu held.
//
// As long as Writes fill chunks they send these themselves: memory that one processor fills and sends stays in its
// cache.
type writeOwner int

const (
	ownerLoop   writeOwner = iota // sendLoop, or it is about to look for work
	ownerNone                     // nothing waits: the next Write wakes sendLoop
	ownerFiller                   // the Write that fills the next chunk, once it has
	ownerWrite                    // a Write that is sending a chunk
)

const (
	// filledChunk is when a Write sends: what is over a chunk would cost a write of its own.
	filledChunk = writeChunk - 4<<10
	// tick is how long Writes have to fill a chunk. If none was sent from one tick to the next, sendLoop sends: no
	// message waits for two.
	tick = 500 * time.Microsecond
)

// nextBatch waits until sendLoop is the owner and has a batch to send or a connection to open. It returns false when
// the Writer is closed and nothing is left.
func (w *Writer) nextBatch() bool {
	for ticked := false; ; {
		owner, more := w.assignOwner(ticked)
		if owner == ownerLoop {
			return more
		}
		ticked = w.awaitWake(owner)
	}
}

// assignOwner decides who writes next. It makes sendLoop the owner when there is work for it, and when there is no more
// at all. The caller is sendLoop.
func (w *Writer) assignOwner(ticked bool) (owner writeOwner, more bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.owner == ownerWrite {
		return ownerWrite, true // that Write wakes sendLoop if it leaves anything
	}
	streaming := w.streaming
	w.streaming = streaming && !ticked
	w.owner, more = ownerLoop, true
	switch {
	case w.unsent < len(w.batch):
	case len(w.pending) > 0 && (!streaming || w.waiters > 0 || w.hurriedLocked()):
		w.takePendingLocked()
	case w.closed:
		more = false
	case len(w.reopens) > 0:
	case streaming:
		w.owner = ownerFiller
	default:
		w.owner = ownerNone
	}
	return w.owner, more
}

// awaitWake waits for wake, or for a tick where Writes send, and tells whether it was a tick.
func (w *Writer) awaitWake(owner writeOwner) (ticked bool) {
	var ticks <-chan time.Time
	if owner != ownerNone {
		w.ticks.Reset(tick)
		ticks = w.ticks.C
	}
	select {
	case <-w.wake:
		return false
	case <-ticks:
		return true
	}
}

// hurriedLocked tells whether a call waits until everything is sent, or for another connection.
func (w *Writer) hurriedLocked() bool {
	return w.closed || len(w.flushes) > 0 || len(w.reopens) > 0
}

// takePendingLocked makes pending the batch. The caller must be the owner, and have sent the last batch.
func (w *Writer) takePendingLocked() {
	w.batch, w.pending = w.pending, w.batch[:0]
	w.unsent = 0
	if w.waiters > 0 {
		w.room.Broadcast()
	}
}

// claimChunkLocked makes a Write the owner, and pending its batch. It returns the connection to send it on, or nil if
// that was lost: sendLoop is the owner then.
func (w *Writer) claimChunkLocked() *outbound {
	if w.conn == nil || w.conn.try == nil {
		w.wakeLoopLocked()
		return nil
	}
	w.owner, w.pendingLimit = ownerWrite, min(filledChunk, w.cfg.BufferSize) // others fill the next chunk, no more
	w.takePendingLocked()
	return w.conn
}

// sendChunk sends the batch as far as the socket takes it without waiting, and leaves the rest to sendLoop. The caller
// is the Write that claimed the chunk; it is the owner no longer when sendChunk returns.
func (w *Writer) sendChunk(conn *outbound) {
	w.send(conn, conn.try.Write)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.owner, w.pendingLimit = ownerFiller, w.cfg.BufferSize
	if w.unsent < len(w.batch) || w.hurriedLocked() {
		w.wakeLoopLocked()
		w.room.Broadcast()
		return
	}
	w.room.Signal() // one Write is enough to fill the next chunk
}

// wakeLoopLocked makes sendLoop the owner.
func (w *Writer) wakeLoopLocked() {
	w.owner = ownerLoop
	w.wakeUp()
}
