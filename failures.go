package buffstreams

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill"

	"github.com/buffstreams/watermill-buffstreams/internal/hook"
	"github.com/buffstreams/watermill-buffstreams/internal/netio"
)

// maxQueuedFailures bounds in bytes what waits for an OnFailure that takes its time.
const maxQueuedFailures = 16 << 20

// failureQueue calls an OnFailure hook from a goroutine of its own, which runs only while there is something to tell: a
// hook that blocks, or that publishes to the peer which refused, holds up no acks. The zero value with a nil hook drops
// everything.
type failureQueue struct {
	hook   func(topic string, encoded []byte, err error)
	logger watermill.LoggerAdapter

	mu      sync.Mutex // guards the fields below
	queue   []failure
	bytes   int
	running chan struct{}    // closed when the goroutine ends; nil while there is none
	dropped UndeliveredError // what exceeded the bound, and no error has reported
}

type failure struct {
	topic   string
	encoded []byte
	err     error

	load func() (encoded []byte, there bool, err error) // asks the store that keeps the message; nil: encoded is set
	told func()                                         // called when the hook has returned; may be nil
}

// add queues one failure. It does not block. What exceeds the bound is logged, and counted in the error of await.
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
		q.dropped.add(topic, "", 1)
		return
	}
	q.pushLocked(failure{topic: topic, encoded: encoded, err: err})
}

// addHeld queues the failure of a message that is in memory already. It does not block, and drops nothing.
func (q *failureQueue) addHeld(topic string, encoded []byte, err error) {
	if q.hook == nil {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.pushLocked(failure{topic: topic, encoded: encoded, err: err})
}

// addStored queues the failure of a message that a store keeps until told is called, which is when the hook has
// returned. It is not dropped, as it takes no memory of the message's size. There must be a hook. It does not block.
func (q *failureQueue) addStored(f failure) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.pushLocked(f)
}

// pushLocked queues a failure, and starts the goroutine if it does not run.
func (q *failureQueue) pushLocked(f failure) {
	q.queue = append(q.queue, f)
	q.bytes += len(f.encoded)
	if q.running == nil {
		q.running = make(chan struct{})
		go q.run(q.running) // ends when the queue is empty; done waits for that
	}
}

// run tells of what is queued. A hook that ends the goroutine, as a test's FailNow does, leaves the rest to another one.
func (q *failureQueue) run(ended chan struct{}) {
	empty := false
	defer func() {
		if !empty {
			go q.run(ended) // as this one
			return
		}
		close(ended)
	}()
	for {
		q.mu.Lock()
		if len(q.queue) == 0 {
			q.queue, q.running = nil, nil
			empty = true
			q.mu.Unlock()
			return
		}
		f := q.queue[0]
		q.queue[0] = failure{}
		q.queue = q.queue[1:]
		q.bytes -= len(f.encoded)
		q.mu.Unlock()
		q.tell(f)
	}
}

// tell calls the hook for one failure.
func (q *failureQueue) tell(f failure) {
	there := true
	if f.load != nil {
		var err error
		if f.encoded, there, err = f.load(); err != nil {
			q.logger.Error("A message that failed cannot be read for OnFailure; it is kept", err, watermill.LogFields{
				"provider": provider, "topic": netio.Quote(f.topic),
			})
			return
		}
	}
	if f.told != nil {
		defer f.told() // also if OnFailure ends the goroutine
	}
	err := hook.Call("OnFailure", func() error {
		if there { // else it was told of before
			q.hook(f.topic, f.encoded, f.err)
		}
		return nil
	})
	if err != nil {
		q.logger.Error("OnFailure panicked", err, watermill.LogFields{"provider": provider, "topic": netio.Quote(f.topic)})
	}
}

// failureGrace is how long a Close waits for its OnFailure when its time is over: what it could not deliver is known
// only then.
const failureGrace = 400 * time.Millisecond

// await waits until everything that was added was told, or ctx is done and failureGrace is over. The error names the
// hook that has not returned, and counts what was not given to it.
func (q *failureQueue) await(ctx context.Context, name string) error {
	longer, cancel := withGrace(ctx, failureGrace)
	defer cancel()
	return q.awaitUntil(longer, name)
}

// awaitUntil is await without a grace.
func (q *failureQueue) awaitUntil(ctx context.Context, name string) error {
	q.mu.Lock()
	running, late := q.running, false
	q.mu.Unlock()
	if running != nil {
		select {
		case <-running:
		case <-ctx.Done():
			late = true
		}
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	var errs []error
	if late && q.running != nil {
		errs = append(errs, fmt.Errorf("buffstreams: %s has not returned in time: %d calls are left", name, len(q.queue)+1))
	}
	if q.dropped.Count > 0 {
		dropped := q.dropped
		q.dropped = UndeliveredError{}
		errs = append(errs, fmt.Errorf("buffstreams: %s is too slow, and did not get all that failed: %w", name, &dropped))
	}
	return errors.Join(errs...)
}
