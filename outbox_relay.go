package buffstreams

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill"

	"github.com/buffstreams/watermill-buffstreams/internal/acked/sender"
	"github.com/buffstreams/watermill-buffstreams/internal/session"
	"github.com/buffstreams/watermill-buffstreams/store"
)

// outboxRelay delivers what an outbox holds. A goroutine for each of its streams reads messages when the peer wants them, and
// settles in the outbox what was handled. One relay at a time delivers an outbox.
type outboxRelay struct {
	outbox   store.Outbox
	manager  *Manager
	logger   watermill.LoggerAdapter
	failures *failureQueue

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup // run
}

func startOutboxRelay(p *Publisher) *outboxRelay {
	r := &outboxRelay{outbox: p.cfg.Outbox, manager: p.manager, logger: p.logger, failures: &p.failures}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	began := make(chan struct{})
	r.wg.Go(func() { r.run(began) }) // ends with stop, which waits for it
	select {
	case <-began:
	case <-time.After(takeOverWait): // another publisher delivers
	}
	return r
}

// takeOverWait is how long NewPublisher waits for the duty to deliver. What this Publisher appends is then known not to have
// been sent before.
const takeOverWait = 20 * time.Millisecond

// stop ends the delivery. What was not delivered stays in the outbox, and another publisher on it carries on. The error says
// that the outbox has not returned when ctx was done.
func (r *outboxRelay) stop(ctx context.Context) error {
	r.cancel()
	ended := make(chan struct{})
	go func() { // Ends with run.
		r.wg.Wait()
		close(ended)
	}()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
	}
	select {
	case <-ended:
		return nil
	case <-time.After(failureGrace):
		return fmt.Errorf("buffstreams: %s has not returned within CloseTimeout", nameOutbox)
	}
}

// run waits for its turn with the outbox, then delivers each stream in a goroutine of its own. It closes began when the
// outbox has told what an earlier process, or another publisher, may have sent.
func (r *outboxRelay) run(began chan<- struct{}) {
	release, err := r.outbox.Acquire(r.ctx)
	if err != nil {
		if r.ctx.Err() == nil {
			r.logger.Error("An outbox is not delivered", err, watermill.LogFields{"provider": provider})
		}
		return
	}
	defer release()
	var streams sync.WaitGroup
	defer streams.Wait()
	known, sent := map[uint64]bool{}, map[uint64]uint64{}
	for _, s := range r.outbox.Streams() {
		sent[s.ID] = s.Next
	}
	close(began)
	for {
		more := r.outbox.NewStreams()
		for _, s := range r.outbox.Streams() {
			if !known[s.ID] {
				known[s.ID] = true
				streams.Go(func() { r.deliver(s.ID, sent[s.ID]) }) // ends with stop; run waits for it
			}
		}
		select {
		case <-more:
		case <-r.ctx.Done():
			return
		}
		if r.ctx.Err() == nil && r.outbox.Err() != nil {
			return
		}
	}
}

// deliver delivers one stream until the relay stops. A stream that cannot be delivered holds up no other. An earlier life of
// the outbox may have sent any message below sent.
func (r *outboxRelay) deliver(id, sent uint64) {
	refused := refusedMessages{seqs: map[uint64]struct{}{}}
	for r.ctx.Err() == nil {
		s, ok := r.stream(id)
		if !ok {
			return
		}
		err := r.deliverOnce(s, &sent, &refused)
		if r.ctx.Err() != nil || errors.Is(err, store.ErrClosed) {
			return
		}
		if errors.Is(err, ErrFenced) || errors.Is(err, ErrNeverSent) {
			r.giveUp(s.Key, err)
			return
		}
		r.pauseAfter(s.Key, err)
	}
}

// giveUpReminder is how often the log says that a stream was given up.
const giveUpReminder = time.Minute

// giveUp says until the relay stops that it does not deliver a stream any more: another process does, or the receiver would
// drop what it is sent. To try again would not help, and could harm what the other process does.
func (r *outboxRelay) giveUp(key store.Key, err error) {
	for r.ctx.Err() == nil {
		r.logger.Error("Messages of an outbox are not delivered by this process any more; they are kept", err, watermill.LogFields{
			"provider": provider, "address": key.Destination, "topic": key.Topic,
		})
		select {
		case <-time.After(giveUpReminder):
		case <-r.ctx.Done():
		}
	}
}

// retryPause is the wait before a stream is tried again that the peer or the outbox refused to let go on.
const retryPause = 5 * time.Second

// pauseAfter logs why a stream does not go on, and waits before the next attempt.
func (r *outboxRelay) pauseAfter(key store.Key, err error) {
	r.logger.Error("Messages of an outbox cannot be delivered; they are kept", err, watermill.LogFields{
		"provider": provider, "address": key.Destination, "topic": key.Topic,
	})
	select {
	case <-time.After(retryPause):
	case <-r.ctx.Done():
	}
}

// stream looks a stream up as it is now.
func (r *outboxRelay) stream(id uint64) (store.Stream, bool) {
	for _, s := range r.outbox.Streams() {
		if s.ID == id {
			return s, true
		}
	}
	return store.Stream{}, false
}

// deliverOnce delivers a stream until an error ends that. It raises sent.
func (r *outboxRelay) deliverOnce(s store.Stream, sent *uint64, refused *refusedMessages) error {
	address, err := parseAddress(s.Key.Destination)
	if err != nil {
		return err
	}
	to, err := r.manager.sender(address)
	if err != nil {
		return err
	}
	relay := &streamRelay{outboxRelay: r, key: s.Key, refused: refused}
	fetched, err := to.Fetch(sender.FetchConfig{
		Identity: r.identity(s.Key.Destination), Stream: s.ID, Topic: s.Key.Topic, Base: s.First, Sent: *sent,
		OnSettled: relay.onSettled, OnRefused: relay.onRefused,
	})
	if err != nil {
		return err
	}
	defer func() {
		fetched.End()
		*sent = fetched.NeverSent()
	}()
	refused.begin(fetched)
	if s.Pending > 0 {
		fetched.Announce(s.Next) // the receiver may have any of them already
	}
	return relay.feed(fetched)
}

// identity is what a destination knows the outbox by. A receiver that shared it with another could pose as this side there.
func (r *outboxRelay) identity(destination string) session.Identity {
	secret, publisher := r.outbox.Secret(), r.outbox.ID()
	mac := hmac.New(sha256.New, secret[:])
	mac.Write(publisher[:])
	mac.Write([]byte(destination))
	sum := mac.Sum(nil)
	return session.Identity{Publisher: [16]byte(sum[:16]), Epoch: r.outbox.Epoch(), Secret: [16]byte(sum[16:])}
}

// streamRelay delivers one stream.
type streamRelay struct {
	*outboxRelay
	key     store.Key
	refused *refusedMessages
	reading sync.Mutex // held while the outbox is read: feed and OnFailure's messages both are
}

// readBytes is how much is read from the outbox at a time.
const readBytes = 64 << 10

// feed reads messages as the peer wants them.
func (r *streamRelay) feed(fetched *sender.FetchedStream) error {
	for r.ctx.Err() == nil {
		if err := r.awaitRefused(); err != nil {
			return err
		}
		from, generation, wanted, err := fetched.Next(r.ctx)
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
			r.pauseAfter(r.key, err)
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
	return r.ctx.Err()
}

func (r *streamRelay) read(from uint64, size int) (store.Batch, error) {
	r.reading.Lock()
	defer r.reading.Unlock()
	return r.outbox.Read(r.key, from, size)
}

// await waits until message seq is durable, and announces it, or until something else is wanted.
func (r *streamRelay) await(fetched *sender.FetchedStream, seq uint64) error {
	lost := fetched.Lost()
	ready, err := r.outbox.Ready(r.key, seq)
	if err != nil {
		return err
	}
	select {
	case <-ready:
		if err := r.outbox.Err(); err != nil {
			return err
		}
		fetched.Announce(seq + 1)
	case <-lost:
	case <-r.ctx.Done():
		return r.ctx.Err()
	}
	return nil
}

// onSettled is called when messages need not be kept any longer.
func (r *streamRelay) onSettled(ranges []store.Range) { r.settle(ranges...) }

// settle removes messages from the outbox, and tells whether that is done.
func (r *streamRelay) settle(ranges ...store.Range) bool {
	err := r.outbox.Settle(r.key, 0, ranges...)
	if err != nil && !errors.Is(err, store.ErrClosed) {
		r.logger.Error("An outbox cannot settle what was delivered", err, watermill.LogFields{
			"provider": provider, "topic": r.key.Topic,
		})
	}
	return err == nil
}
