package pool

import (
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill"

	"github.com/buffstreams/watermill-buffstreams/framing"
	"github.com/buffstreams/watermill-buffstreams/internal/netio"
)

// losses counts the messages that failed for good. It is guarded by the Writer's mu.
type losses struct {
	handled  bool // OnFailure or Failures gets them; errors only repeat it
	count    int
	reported int // how many of count an error has reported
	last     error
}

// unreported is the number of messages that nothing has reported.
func (l *losses) unreported() int {
	if l.handled {
		return 0
	}
	return l.count - l.reported
}

// takeLossesLocked returns the error for what failed since the count was since, and for what is unreported.
func (w *Writer) takeLossesLocked(since int) error {
	l := &w.losses
	if !l.handled {
		since = min(since, l.reported)
	}
	l.reported = l.count
	if l.count == since {
		return nil
	}
	return &FailedError{Count: l.count - since, Err: l.last}
}

// failPending gives up on every message that was accepted so far. The caller is sendLoop, and must know that the
// failure queue is empty.
func (w *Writer) failPending(cause error) {
	batch, pending, count := w.discardPending(cause)
	if count == 0 {
		return
	}
	w.cfg.Logger.Error("Giving up on messages", cause, w.fields().Add(watermill.LogFields{"count": count}))
	if w.losses.handled {
		w.failures.push(batch, cause)
		w.failures.push(pending, cause)
	}
}

// discardPending takes all frames out of the Writer and counts them as lost.
func (w *Writer) discardPending(cause error) (batch, pending []byte, count int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	batch, pending = w.batch[w.unsent:], w.pending
	w.batch, w.unsent, w.pending = nil, 0, nil
	count = countFrames(w.codec, batch) + countFrames(w.codec, pending)
	if count > 0 {
		w.losses.count += count
		w.losses.last = cause
	}
	w.settleLocked(len(batch) + len(pending))
	w.room.Broadcast()
	return batch, pending, count
}

// closeResult waits until failed messages are handed over, and returns the result of Close.
func (w *Writer) closeResult(lostBefore int) error {
	left := w.failures.finish(w.cfg.CloseTimeout)
	w.mu.Lock()
	defer w.mu.Unlock()
	err := w.takeLossesLocked(lostBefore)
	if left > 0 {
		err = errors.Join(err, fmt.Errorf("%w: %d failed messages were not handed over", ErrCloseTimeout, left))
	}
	return err
}

// failureQueue hands failed messages over, in order, from a goroutine that it has only while there are some. It holds
// no more memory than a Writer had pending: the Writer pushes only while it is empty.
type failureQueue struct {
	cfg     WriterConfig
	codec   framing.Codec
	abandon chan struct{} // closed when Close does not wait any longer

	mu      sync.Mutex // guards the fields below
	failed  []failedFrames
	left    int           // messages in failed, and of the failedFrames being handed over
	running chan struct{} // closed when the goroutine ends; nil while there is none
}

type failedFrames struct {
	frames []byte
	err    error
}

// empty tells whether everything was handed over.
func (q *failureQueue) empty() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.running == nil
}

// push makes frames the queue's own.
func (q *failureQueue) push(frames []byte, err error) {
	if len(frames) == 0 {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.failed = append(q.failed, failedFrames{frames, err})
	q.left += countFrames(q.codec, frames)
	if q.running == nil {
		q.running = make(chan struct{})
		go q.run(q.running) // ends when failed is empty or abandon is closed; finish waits for it
	}
}

func (q *failureQueue) run(ended chan struct{}) {
	defer close(ended)
	for next := q.pop(); next != nil; next = q.pop() {
		forEachFrame(q.codec, next.frames, func(payload []byte) bool {
			return q.handOver(Failure{Address: q.cfg.Address, Payload: payload, Err: next.err})
		})
	}
}

// pop returns nil when the queue is empty: the goroutine must end then.
func (q *failureQueue) pop() *failedFrames {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.failed) == 0 {
		q.running = nil
		return nil
	}
	next := &q.failed[0]
	q.failed = q.failed[1:]
	return next
}

// handOver returns false when the queue was abandoned.
func (q *failureQueue) handOver(f Failure) bool {
	select {
	case <-q.abandon:
		return false
	default:
	}
	if q.cfg.OnFailure != nil {
		q.callHandler(f)
	} else {
		select {
		case q.cfg.Failures <- f:
		case <-q.abandon:
			return false
		}
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.left--
	return true
}

// callHandler recovers a panic of OnFailure, which must not end the process.
func (q *failureQueue) callHandler(f Failure) {
	defer func() {
		if p := recover(); p != nil {
			q.cfg.Logger.Error("OnFailure panicked, its message is lost", fmt.Errorf("panic: %v", p),
				watermill.LogFields{"provider": netio.Provider, "address": netio.Quote(f.Address), "stack": string(debug.Stack())})
		}
	}()
	q.cfg.OnFailure(f)
}

// finish waits until everything is handed over, and returns how many messages were left after the timeout. Nothing may
// be pushed after it.
func (q *failureQueue) finish(timeout time.Duration) (left int) {
	running := q.goroutine()
	if running == nil {
		return 0
	}
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case <-running:
		return 0
	case <-timer.C:
	}
	close(q.abandon)
	if q.cfg.OnFailure == nil {
		<-running // it waits for the channel alone
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.left
}

// goroutine returns a channel that is closed when the goroutine ends, or nil if there is none.
func (q *failureQueue) goroutine() <-chan struct{} {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.running
}

// countFrames counts frames that AppendHeader of the same codec has made.
func countFrames(codec framing.Codec, frames []byte) int {
	n := 0
	forEachFrame(codec, frames, func([]byte) bool { n++; return true })
	return n
}

// forEachFrame calls f for the payload of each whole frame until f returns false, and returns the length of those
// frames.
func forEachFrame(codec framing.Codec, frames []byte, f func(payload []byte) bool) int {
	at := 0
	for at < len(frames) {
		length, width, err := codec.ParseHeader(frames[at:])
		if err != nil || length > len(frames)-at-width {
			break // the rest is the beginning of a frame
		}
		next := at + width + length
		if !f(frames[at+width : next : next]) {
			break
		}
		at = next
	}
	return at
}
