package buffstreams

import (
	"context"
	"fmt"
	"sync"
	"time"

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

// failureGrace is how long a Close waits for its OnFailure when its time is over: what it could not deliver is known only then.
const failureGrace = 400 * time.Millisecond

// await waits until everything that was added was told, or ctx is done and failureGrace is over. The error names the hook that has not returned.
func (q *failureQueue) await(ctx context.Context, name string) error {
	q.mu.Lock()
	running := q.running
	q.mu.Unlock()
	if running == nil {
		return nil
	}
	select {
	case <-running:
		return nil
	case <-ctx.Done():
	}
	grace := time.NewTimer(failureGrace)
	defer grace.Stop()
	select {
	case <-running:
		return nil
	case <-grace.C:
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.running == nil {
		return nil
	}
	return fmt.Errorf("buffstreams: %s has not returned in time: %d calls are left", name, len(q.queue)+1)
}
