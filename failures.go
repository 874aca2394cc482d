package buffstreams

import (
	"sync"

	"github.com/ThreeDotsLabs/watermill"

	"github.com/buffstreams/watermill-buffstreams/internal/hook"
	"github.com/buffstreams/watermill-buffstreams/internal/netio"
)

// maxQueuedFailures bounds in bytes what waits for an OnFailure that takes its time.
const maxQueuedFailures = 16 << 20

// failureQueue calls an OnFailure hook from a goroutine of its own, which runs only while there is something to tell: a hook
// that blocks, or that publishes to the peer which refused, holds up no acks. The zero value with a nil hook drops everything.
type failureQueue struct {
	hook   func(topic string, encoded []byte, err error)
	logger watermill.LoggerAdapter

	mu      sync.Mutex // guards the fields below
	queue   []failure
	bytes   int
	running chan struct{} // closed when the goroutine ends; nil while there is none
}

type failure struct {
	topic   string
	encoded []byte
	err     error
}

// add queues one failure. It does not block. What exceeds the bound is only counted in a log line.
func (q *failureQueue) add(topic string, encoded []byte, err error) {
	if q.hook == nil {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.queue) > 0 && q.bytes+len(encoded) > maxQueuedFailures {
		q.logger.Error("OnFailure is too slow: a message that failed was not given to it", err, watermill.LogFields{
			"provider": provider, "topic": netio.Quote(topic), "waiting": len(q.queue),
		})
		return
	}
	q.queue = append(q.queue, failure{topic, encoded, err})
	q.bytes += len(encoded)
	if q.running == nil {
		q.running = make(chan struct{})
		go q.run(q.running) // ends when the queue is empty; done waits for that
	}
}

func (q *failureQueue) run(ended chan struct{}) {
	defer close(ended)
	for {
		q.mu.Lock()
		if len(q.queue) == 0 {
			q.queue, q.running = nil, nil
			q.mu.Unlock()
			return
		}
		f := q.queue[0]
		q.queue[0] = failure{}
		q.queue = q.queue[1:]
		q.bytes -= len(f.encoded)
		q.mu.Unlock()
		if err := hook.Call(func() error { q.hook(f.topic, f.encoded, f.err); return nil }); err != nil {
			q.logger.Error("OnFailure panicked", err, watermill.LogFields{"provider": provider, "topic": netio.Quote(f.topic)})
		}
	}
}

// done returns a channel that is closed when everything that was added has been told.
func (q *failureQueue) done() <-chan struct{} {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.running == nil {
		ended := make(chan struct{})
		close(ended)
		return ended
	}
	return q.running
}

// left is the number of failures that were not told yet, the one under way included.
func (q *failureQueue) left() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.running == nil {
		return 0
	}
	return len(q.queue) + 1
}
