package pool

import (
	"context"
	"slices"
)

// flushWait is a Flush that waits until settled has reached target.
type flushWait struct {
	target uint64
	done   chan struct{}
}

// Flush waits until every message that was queued before it was written to the socket or has failed, or until ctx is
// done. It returns ctx.Err() or a *FailedError for those that failed. Nil means that the kernel has them all, not that
// the peer does.
func (w *Writer) Flush(ctx context.Context) error {
	wait, lostBefore := w.addFlush()
	if wait != nil {
		w.wakeUp()
		select {
		case <-wait.done:
		case <-ctx.Done():
			w.removeFlush(wait)
			return ctx.Err()
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.takeLossesLocked(lostBefore)
}

// addFlush returns nil if there is nothing to wait for, and how many messages had failed by now.
func (w *Writer) addFlush() (wait *flushWait, lost int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.settled < w.queued {
		wait = &flushWait{target: w.queued, done: make(chan struct{})}
		w.flushes = append(w.flushes, wait)
	}
	return wait, w.losses.count
}

func (w *Writer) removeFlush(wait *flushWait) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.flushes = slices.DeleteFunc(w.flushes, func(f *flushWait) bool { return f == wait })
}

// settleLocked counts bytes of frames as sent or failed, and ends the Flush calls that waited for them.
func (w *Writer) settleLocked(n int) {
	w.settled += uint64(n)
	w.flushes = slices.DeleteFunc(w.flushes, func(f *flushWait) bool {
		reached := f.target <= w.settled
		if reached {
			close(f.done)
		}
		return reached
	})
}
