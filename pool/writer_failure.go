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

// losses counts the messages that failed for good. The Writer's mu guards it.
type losses struct {
	handled  bool // a failure handler gets them; errors only repeat it
	count    int
	reported int // how many of count an error told the caller of
	last     error
}

// unreported is the number that nobody was told of.
func (l *losses) unreported() int {
	if l.handled {
		return 0
	}
	return l.count - l.reported
}

// takeLosses makes the error for what failed since the count was since, and
// for what nobody was told of. It wants mu.
func (w *Writer) takeLosses(since int) error {
	l := &w.losses
	if !l.handled {
		since = min(since, l.reported)
	}
	l.reported = l.count
	w.notable = w.closed
	if l.count == since {
		return nil
	}
	return &FailedError{Count: l.count - since, Err: l.last}
}

// failPending gives up on everything that was accepted so far. It is called by
// sendLoop, which must know that the failure queue has room.
func (w *Writer) failPending(cause error) {
	rest := w.batch[w.unsent:]
	w.mu.Lock()
	pending := w.pending
	w.batch, w.unsent, w.pending = nil, 0, nil
	count := countFrames(w.codec, rest) + countFrames(w.codec, pending)
	if count > 0 {
		w.losses.count += count
		w.losses.last = cause
		w.notable = w.notable || !w.losses.handled
	}
	w.settle(len(rest) + len(pending))
	w.room.Broadcast()
	w.mu.Unlock()
	if count == 0 {
		return
	}
	w.cfg.Logger.Error("giving up on messages", cause, w.fields().Add(watermill.LogFields{"count": count}))
	w.failures.push(rest, cause)
	w.failures.push(pending, cause)
}

// closeResult waits for the failure handler and sums up.
func (w *Writer) closeResult(lostBefore int) error {
	left := w.failures.finish(w.cfg.CloseTimeout)
	w.mu.Lock()
	err := w.takeLosses(lostBefore)
	w.mu.Unlock()
	if left > 0 {
		err = errors.Join(err, fmt.Errorf("%w: %d failed messages were not handed over", ErrCloseTimeout, left))
	}
	return err
}

// failureQueue hands failed messages over, in order, from a goroutine that
// lives only while there are some. The memory it holds is what a Writer had
// pending: the Writer pushes to it only while it is empty.
type failureQueue struct {
	cfg     WriterConfig
	codec   framing.Codec
	abandon chan struct{} // closed when nobody waits for the hand-over any more

	mu      sync.Mutex
	failed  []failedFrames
	left    int           // messages in failed, and of the one being handed over
	running chan struct{} // closed when the goroutine ends; nil while there is none
}

type failedFrames struct {
	frames []byte
	err    error
}

func (q *failureQueue) init(w *Writer) {
	q.cfg, q.codec = w.cfg, w.codec
	q.abandon = make(chan struct{})
	w.losses.handled = q.wanted()
}

func (q *failureQueue) wanted() bool { return q.cfg.OnFailure != nil || q.cfg.Failures != nil }

// empty tells whether everything was handed over.
func (q *failureQueue) empty() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.running == nil
}

// push takes possession of frames.
func (q *failureQueue) push(frames []byte, err error) {
	if len(frames) == 0 || !q.wanted() {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.failed = append(q.failed, failedFrames{frames, err})
	q.left += countFrames(q.codec, frames)
	if q.running == nil {
		q.running = make(chan struct{})
		go q.run(q.running) // ends when failed is empty; finish waits for that
	}
}

func (q *failureQueue) run(ended chan struct{}) {
	defer close(ended)
	for {
		q.mu.Lock()
		if len(q.failed) == 0 {
			q.running = nil
			q.mu.Unlock()
			return
		}
		next := q.failed[0]
		q.failed = q.failed[1:]
		q.mu.Unlock()
		forEachFrame(q.codec, next.frames, func(payload []byte) bool {
			return q.handOver(Failure{Address: q.cfg.Address, Payload: payload, Err: next.err})
		})
	}
}

// handOver returns false when nobody waits any more.
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
	q.left--
	q.mu.Unlock()
	return true
}

// callHandler keeps a panic of the user's handler from ending the process.
func (q *failureQueue) callHandler(f Failure) {
	defer func() {
		if p := recover(); p != nil {
			q.cfg.Logger.Error("OnFailure panicked; the message it got is lost", fmt.Errorf("panic: %v", p),
				watermill.LogFields{"provider": netio.Provider, "address": netio.Quote(f.Address), "stack": string(debug.Stack())})
		}
	}()
	q.cfg.OnFailure(f)
}

// finish waits for the hand-over of everything and returns how many messages
// were left when the time was over. Nothing may be pushed any more.
func (q *failureQueue) finish(timeout time.Duration) int {
	q.mu.Lock()
	running := q.running
	q.mu.Unlock()
	if running == nil {
		return 0
	}
	patience := time.NewTimer(timeout)
	defer patience.Stop()
	select {
	case <-running:
		return 0
	case <-patience.C:
	}
	close(q.abandon)
	if q.cfg.OnFailure == nil {
		<-running // it waits for nothing but the channel
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.left
}

// countFrames counts frames that were made by AppendHeader of the same codec.
func countFrames(codec framing.Codec, frames []byte) int {
	n := 0
	forEachFrame(codec, frames, func([]byte) bool { n++; return true })
	return n
}

// forEachFrame calls f for the payload of each whole frame until f returns
// false, and returns the length of those frames.
func forEachFrame(codec framing.Codec, frames []byte, f func(payload []byte) bool) int {
	at := 0
	for at < len(frames) {
		length, width, err := codec.ParseHeader(frames[at:])
		if err != nil || length > len(frames)-at-width {
			break // the rest is the beginning of a frame
		}
		end := at + width + length
		if !f(frames[at+width : end : end]) {
			break
		}
		at = end
	}
	return at
}
