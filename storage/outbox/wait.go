package outbox

import (
	"context"

	"github.com/buffstreams/watermill-buffstreams/store"
)

// waiter is a channel that Readable returned. It is closed when message seq of its stream is durable.
type waiter struct {
	seq uint64
	ch  chan struct{}
}

// Readable returns a channel that is closed when message seq of stream k can be read, and when the outbox is closed or
// fails. It returns store.ErrUnknownStream if there is no stream k. Calls with the same sequence return the same
// channel while it is open.
func (o *Outbox) Readable(k store.Key, seq uint64) (<-chan struct{}, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	s, err := o.streamLocked(k)
	if err != nil {
		return nil, err
	}
	for _, w := range s.waiters {
		if w.seq == seq {
			return w.ch, nil
		}
	}
	w := waiter{seq: seq, ch: make(chan struct{})}
	if seq < s.durable {
		close(w.ch)
		return w.ch, nil
	}
	s.waiters = append(s.waiters, w)
	return w.ch, nil
}

// notify closes the channels of the waiters whose messages are durable now.
func (s *stream) notify() {
	kept := s.waiters[:0]
	for _, w := range s.waiters {
		if w.seq < s.durable {
			close(w.ch)
		} else {
			kept = append(kept, w)
		}
	}
	s.waiters = kept
}

// NewStreams returns a channel that is closed when the next stream is created, and when the outbox is closed or fails.
// A caller that calls NewStreams before Streams misses none.
func (o *Outbox) NewStreams() <-chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.newStreams
}

// Drain waits until no message of any stream is pending. It returns nil then, the context's error if ctx ends first,
// and store.ErrClosed or an error that wraps store.ErrFailed if the outbox is closed or fails.
func (o *Outbox) Drain(ctx context.Context) error {
	for {
		drained, err := o.pendingDrain()
		if drained == nil {
			return err
		}
		select {
		case <-drained:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// pendingDrain returns a channel that is closed when Drain should look again, or nil if Drain is to return err.
func (o *Outbox) pendingDrain() (drained <-chan struct{}, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := o.errLocked(); err != nil || o.index.bytes == 0 {
		return nil, err
	}
	if o.drained == nil {
		o.drained = make(chan struct{})
	}
	return o.drained, nil
}

func (o *Outbox) notifyDrainedLocked() {
	if o.drained != nil {
		close(o.drained)
		o.drained = nil
	}
}

// Acquire waits until no other caller has the duty to deliver this outbox, and gives it to the caller: one at a time
// keeps the order of each stream. The caller must call release once, when it has stopped delivering. The only error is
// the context's; Acquire also succeeds when the outbox is closed or has failed.
func (o *Outbox) Acquire(ctx context.Context) (release func(), err error) {
	select {
	case o.delivery <- struct{}{}:
		return func() { <-o.delivery }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// endWaitsLocked closes all channels that callers wait for. The outbox must have been closed or have failed, so that no
// new ones follow.
func (o *Outbox) endWaitsLocked() {
	for _, s := range o.index.byID {
		for _, w := range s.waiters {
			close(w.ch)
		}
		s.waiters = nil
	}
	o.notifyDrainedLocked()
	select {
	case <-o.newStreams:
	default:
		close(o.newStreams)
	}
}
