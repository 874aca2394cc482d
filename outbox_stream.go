package buffstreams

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill"

	"github.com/buffstreams/watermill-buffstreams/internal/acked/sender"
	"github.com/buffstreams/watermill-buffstreams/internal/netio"
	"github.com/buffstreams/watermill-buffstreams/store"
)

var (
	errStreamEnded = errors.New("buffstreams: the stream of the outbox has ended")
	errRenounced   = errors.New("buffstreams: the outbox has a new identity")
)

// streamRelay delivers one stream.
type streamRelay struct {
	*outboxRelay
	id      uint64
	key     store.Key
	attempt context.Context // ends with the identity of the present attempt
	refused refusedMessages
	voided  bool // other addresses were told of it: see voidElsewhere
	pauses  netio.Quiet
	reading sync.Mutex // held while the outbox is read: feed and OnFailure's messages both are
}

func (r *streamRelay) fields() watermill.LogFields {
	return watermill.LogFields{"provider": provider, "address": r.key.Destination, "topic": r.key.Topic}
}

// pause logs why the stream does not go on, once a minute while it does not, and waits before the next attempt.
func (r *streamRelay) pause(err error, d time.Duration) {
	if count, ok := r.pauses.Say(); ok {
		fields := r.fields()
		fields["count"] = count
		r.logger.Error("Messages of an outbox cannot be delivered; they are kept", err, fields)
	}
	select {
	case <-time.After(d):
	case <-r.ctx.Done():
	}
}

// deliverOnce delivers the stream until an error ends that.
func (r *streamRelay) deliverOnce(s store.Stream) error {
	if topic, group, slot, ok := s.Key.ByTopic(); ok {
		return r.deliverByTopic(s, topic, group, slot)
	}
	address, err := r.dialed(s.Key.Topic, s.Key.Destination)
	if err != nil {
		return err
	}
	used, err := r.manager.use(address)
	if err != nil {
		return err
	}
	defer r.manager.release(used)
	to := used.sender
	id, current := r.currentIdentity(s.Key.Destination)
	r.attempt = current
	fetched, err := to.Fetch(sender.FetchConfig{
		Identity: id, Stream: s.ID, Topic: s.Key.Topic, Base: s.First, Sent: s.Sent, Openings: s.Openings,
		OnSettled: r.onSettled, OnRefused: r.onRefused,
	})
	if err != nil {
		return err
	}
	return r.serve(s, fetched)
}

// serve delivers the stream until an error ends that.
func (r *streamRelay) serve(s store.Stream, fetched *sender.FetchedStream) error {
	defer fetched.End()
	r.refused.begin(fetched)
	if s.Pending > 0 {
		fetched.Announce(s.Next) // the receiver may have any of them already
	}
	err := r.feed(fetched)
	switch {
	case r.ctx.Err() != nil:
		if r.forget(r.closing) {
			fetched.Release()
		}
	case r.attempt.Err() != nil:
		return errRenounced
	}
	return err
}

// forget ends the stream in the outbox if nothing is pending. It returns false if the stream goes on.
func (r *streamRelay) forget(ctx context.Context) bool {
	if s, ok := r.stream(r.id); !ok || s.Pending > 0 {
		return false
	}
	err := r.outbox.Forget(ctx, r.key)
	if err != nil && ctx.Err() == nil && !errors.Is(err, store.ErrPending) && !errors.Is(err, store.ErrClosed) {
		r.logger.Error("An outbox cannot end a stream that holds nothing", err, r.fields())
	}
	if err == nil {
		r.users.forget(r.key)
	}
	return err == nil
}

// readBytes is how much is read from the outbox at a time.
const readBytes = 64 << 10

// feed reads messages as the peer wants them.
func (r *streamRelay) feed(fetched *sender.FetchedStream) error {
	for r.attempt.Err() == nil {
		if err := r.awaitRefused(); err != nil {
			return err
		}
		from, generation, wanted, err := fetched.Next(r.attempt)
		if err != nil {
			return err
		}
		if !wanted { // no peer is dialed for a stream that holds nothing
			if next, quiet := fetched.Quiet(); quiet {
				if err := r.await(fetched, next); err != nil {
					return err
				}
			}
			continue
		}
		batch, err := r.read(from, readBytes)
		if damage := (*store.CorruptError)(nil); errors.As(err, &damage) {
			// What was read before it stays on its way; the stream goes on when the damaged range is settled.
			r.pause(err, retryPause)
			continue
		}
		if err != nil {
			return err
		}
		if len(batch.Messages) > 0 {
			fetched.Feed(generation, batch.First, batch.Messages)
			continue
		}
		if err := r.await(fetched, batch.First); err != nil {
			return err
		}
	}
	return r.attempt.Err()
}

func (r *streamRelay) read(from uint64, size int) (store.Batch, error) {
	r.reading.Lock()
	defer r.reading.Unlock()
	return r.outbox.Read(r.key, from, size)
}

// await waits until message seq is durable, and announces it, or until something else is wanted. A stream that has been
// idle for long ends at both ends.
func (r *streamRelay) await(fetched *sender.FetchedStream, seq uint64) error {
	lost := fetched.Lost()
	ready, err := r.outbox.Readable(r.key, seq)
	if err != nil {
		return err
	}
	idle := time.NewTimer(r.manager.cfg.Acked.ForgetAfter)
	defer idle.Stop()
	select {
	case <-ready:
		if err := r.outbox.Err(); err != nil {
			return err
		}
		fetched.Announce(seq + 1)
	case <-lost:
	case <-idle.C:
		if r.forget(r.ctx) {
			fetched.Release()
			return errStreamEnded
		}
	case <-r.attempt.Done():
		return r.attempt.Err()
	}
	return nil
}

// onSettled is called when messages need not be kept any longer.
func (r *streamRelay) onSettled(ranges []store.Range) { r.settle(ranges...) }

// settle removes messages from the outbox, and tells whether that is done.
func (r *streamRelay) settle(ranges ...store.Range) bool {
	err := r.outbox.Settle(r.key, 0, ranges...)
	if err != nil && !errors.Is(err, store.ErrClosed) {
		r.logger.Error("An outbox cannot settle what was delivered", err, r.fields())
	}
	return err == nil
}
