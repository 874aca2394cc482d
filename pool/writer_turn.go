package pool

import "time"

// turn says who sends what is pending, and so has the fields of Writer that
// belong to that.
type turn int

const (
	looping turn = iota // sendLoop, or it is about to look whether it has to
	resting             // nobody: the next Write wakes sendLoop
	writing             // the Write that fills a chunk, as long as they do
	lent                // a Write, at this moment
)

const (
	// filledChunk is when a Write sends: what is over a chunk would cost a write of its own.
	filledChunk = writeChunk - 4<<10
	// tick is how long Writes have to fill a chunk. When none was filled from one tick to the next, sendLoop goes on: no
	// message waits for two.
	tick = 500 * time.Microsecond
	// spins is how often lock tries before it parks.
	spins = 32
)

// nextBatch waits until there is something to send, or a connection to open,
// and returns false when the Writer is closed and nothing is left.
//
// As long as Writes fill chunks they send these themselves: memory that is
// filled and sent by one processor stays in its cache.
func (w *Writer) nextBatch() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for late := false; ; late = w.rest() {
		if w.turn == lent {
			continue // that Write wakes us if it leaves anything
		}
		streams := w.streams
		w.streams = streams && !late
		w.turn = looping
		switch {
		case w.unsent < len(w.batch):
			return true
		case len(w.pending) > 0 && (!streams || w.waiting > 0 || w.hurried()):
			w.takePending()
			return true
		case w.closed:
			return false
		case len(w.reopens) > 0:
			return true
		case streams:
			w.turn = writing
		default:
			w.turn = resting
		}
	}
}

// hurried tells whether somebody waits until everything is sent, or for another
// connection. It wants mu.
func (w *Writer) hurried() bool {
	return w.closed || len(w.flushes) > 0 || len(w.reopens) > 0
}

// rest waits for wake, or a tick, and tells whether it was that. It wants mu,
// which it gives away while it waits.
func (w *Writer) rest() (ticked bool) {
	var ticks <-chan time.Time
	if w.turn != resting {
		w.ticks.Reset(tick)
		ticks = w.ticks.C
	}
	w.mu.Unlock()
	defer w.mu.Lock()
	select {
	case <-w.wake:
		return false
	case <-ticks:
		return true
	}
}

// takePending makes what is pending the batch. It wants mu and the turn.
func (w *Writer) takePending() {
	w.batch, w.pending = w.pending, w.batch[:0]
	w.unsent = 0
	if w.waiting > 0 {
		w.room.Broadcast()
	}
}

// sendChunk sends what is pending as far as the socket takes it without waiting,
// and leaves the rest to sendLoop. It wants mu, which it gives away while it
// sends: meanwhile others fill no more than the next chunk.
func (w *Writer) sendChunk() {
	conn, try := w.conn, w.try
	if try == nil { // the connection was lost
		w.handBack()
		return
	}
	w.turn, w.bound = lent, min(filledChunk, w.cfg.BufferSize)
	w.takePending()
	w.mu.Unlock()
	w.send(conn, try.Write)
	w.mu.Lock()
	w.turn, w.bound = writing, w.cfg.BufferSize
	if w.unsent < len(w.batch) || w.hurried() {
		w.handBack()
		w.room.Broadcast()
		return
	}
	w.room.Signal() // one is enough to fill the next chunk
}

// handBack has sendLoop go on. It wants mu.
func (w *Writer) handBack() {
	w.turn = looping
	w.wakeUp()
}

// lock locks mu, which is held for a copy at most. The runtime would park us at
// once where other goroutines are ready to run, and that costs more.
func (w *Writer) lock() {
	for range spins {
		if w.mu.TryLock() {
			return
		}
	}
	w.mu.Lock()
}
