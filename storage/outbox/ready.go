package outbox

import (
	"context"

	"github.com/buffstreams/watermill-buffstreams/store"
)

// waiter waits for sequence from of its stream to be durable.
type waiter struct {
	from uint64
	ch   chan struct{}
}

// Ready returns a channel that is closed once message from of stream k can be
// read, and when the outbox is closed or fails. Asking again for the same
// sequence returns the same channel.
func (o *Outbox) Ready(k store.Key, from uint64) (<-chan struct{}, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	s, err := o.lookup(k)
	if err != nil {
		return nil, err
	}
	for _, w := range s.waiters {
		if w.from == from {
			return w.ch, nil
		}
	}
	w := waiter{from: from, ch: make(chan struct{})}
	if from < s.durable {
		close(w.ch)
		return w.ch, nil
	}
	s.waiters = append(s.waiters, w)
	return w.ch, nil
}

// NewStreams returns a channel that is closed when the next stream appears, and
// when the outbox is closed or fails. A caller that asks before it calls
// Streams misses none.
func (o *Outbox) NewStreams() <-chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.newStreams
}

// Drained waits until no message of any stream is pending.
func (o *Outbox) Drain(ctx context.Context) error {
	for {
		o.mu.Lock()
		err := o.usable()
		if err != nil || o.bytes == 0 {
			o.mu.Unlock()
			return err
		}
		if o.drained == nil {
			o.drained = make(chan struct{})
		}
		drained := o.drained
		o.mu.Unlock()
		select {
		case <-drained:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// wakeWaiters tells the reader of s what is durable now. mu is held.
func (s *stream) wakeWaiters() {
	kept := s.waiters[:0]
	for _, w := range s.waiters {
		if w.from < s.durable {
			close(w.ch)
		} else {
			kept = append(kept, w)
		}
	}
	s.waiters = kept
}

// releaseWaiters ends every wait, now and later. mu is held, and usable fails
// from now on.
func (o *Outbox) releaseWaiters() {
	for _, s := range o.byID {
		for _, w := range s.waiters {
			close(w.ch)
		}
		s.waiters = nil
	}
	if o.drained != nil {
		close(o.drained)
		o.drained = nil
	}
	select {
	case <-o.newStreams:
	default:
		close(o.newStreams)
	}
}
