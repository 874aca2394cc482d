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

	"github.com/buffstreams/watermill-buffstreams/internal/session"
	"github.com/buffstreams/watermill-buffstreams/store"
)

// outboxRelay delivers what an outbox holds. A goroutine for each of its streams reads messages when the peer wants
// them, and settles in the outbox what was handled. One relay at a time delivers an outbox.
type outboxRelay struct {
	outbox    store.Outbox
	placer    store.Placer // nil: messages belong to addresses
	publisher *Publisher
	manager   *Manager
	logger    watermill.LoggerAdapter
	users     *outboxUsers // told of what is refused

	ctx     context.Context // ends with stop
	cancel  context.CancelFunc
	wg      sync.WaitGroup  // run
	closing context.Context // of what stop still does; set before ctx ends

	renouncing sync.Mutex      // held while the identity is read or changes
	mu         sync.Mutex      // guards the fields below
	valid      context.Context // ends when the outbox has another identity
	invalidate context.CancelFunc
}

func newOutboxRelay(p *Publisher) *outboxRelay {
	r := &outboxRelay{outbox: p.cfg.Outbox, placer: placerOf(p.cfg.Outbox), publisher: p, manager: p.manager, logger: p.logger, users: p.users}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	r.valid, r.invalidate = context.WithCancel(r.ctx)
	return r
}

// start begins the delivery. The Publisher must have the relay by then.
func (r *outboxRelay) start() { r.wg.Go(r.run) } // ends with stop, which waits for it

// stop ends the delivery. What was not delivered stays in the outbox, and another publisher on it carries on. Streams
// that hold nothing end at both ends, as far as ctx allows. The error says that the outbox has not returned when ctx
// was done.
func (r *outboxRelay) stop(ctx context.Context) error {
	r.closing = ctx
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

// run waits for its turn with the outbox, then delivers each stream in a goroutine of its own.
func (r *outboxRelay) run() {
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
	known := newStreamSet()
	for {
		more := r.outbox.NewStreams()
		for _, s := range r.outbox.Streams() {
			if known.add(s.ID) {
				streams.Go(func() { // ends with stop, or with the stream; run waits for it
					defer known.remove(s.ID)
					r.deliver(s)
				})
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

// streamSet is the numbers of the streams that are delivered.
type streamSet struct {
	mu  sync.Mutex // guards ids
	ids map[uint64]struct{}
}

func newStreamSet() *streamSet { return &streamSet{ids: map[uint64]struct{}{}} }

// add returns false if the stream is there.
func (s *streamSet) add(id uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, there := s.ids[id]
	s.ids[id] = struct{}{}
	return !there
}

func (s *streamSet) remove(id uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.ids, id)
}

const (
	// retryPause is the wait before a stream is tried again that the peer or the outbox refused to let go on.
	retryPause = 5 * time.Second
	// fencedPause is the same where another attempt is not likely to succeed.
	fencedPause = time.Minute
)

// deliver delivers one stream until it ends, or the relay stops. A stream that cannot be delivered holds up no other.
func (r *outboxRelay) deliver(s store.Stream) {
	stream := &streamRelay{outboxRelay: r, id: s.ID, key: s.Key, refused: refusedMessages{seqs: map[uint64]struct{}{}}}
	if s.Pending == 0 && stream.forget(r.ctx) { // an earlier process has delivered all of it
		return
	}
	for ok := true; ok && r.ctx.Err() == nil; s, ok = r.stream(s.ID) {
		err := stream.deliverOnce(s)
		switch {
		case errors.Is(err, errStreamEnded) || errors.Is(err, store.ErrClosed) || r.ctx.Err() != nil:
			return
		case errors.Is(err, errRenounced):
		case errors.Is(err, session.ErrCopied) || errors.Is(err, ErrNeverSent):
			if !r.renounce(stream, err) {
				stream.pause(err, fencedPause)
			}
		case errors.Is(err, ErrFenced):
			stream.pause(err, fencedPause)
		case errors.Is(err, ErrTopicGone) && stream.refuseAll(s, err):
		default:
			stream.pause(err, retryPause)
		}
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

// currentIdentity is what a destination knows the outbox by, and a context that ends when that changes. A receiver that
// shared the identity with another could pose as this side there.
func (r *outboxRelay) currentIdentity(destination string) (session.Identity, context.Context) {
	r.renouncing.Lock()
	defer r.renouncing.Unlock()
	secret, publisher := r.outbox.Secret(), r.outbox.ID()
	mac := hmac.New(sha256.New, secret[:])
	mac.Write(publisher[:])
	mac.Write([]byte(destination))
	sum := mac.Sum(nil)
	id := session.Identity{
		Publisher: [16]byte(sum[:16]), Epoch: r.outbox.Epoch(), Secret: [16]byte(sum[16:]), Lineage: r.outbox.Lineage(),
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return id, r.valid
}

// renounce has the outbox take a new identity, as the one with which a stream was opened is not, or not only, its own.
// It returns false if there is no other way to open the stream: then the receiver is mistaken.
func (r *outboxRelay) renounce(s *streamRelay, cause error) bool {
	r.renouncing.Lock()
	defer r.renouncing.Unlock()
	if s.attempt.Err() != nil { // another stream has found it out
		return true
	}
	renounced, err := r.outbox.Renounce()
	if err != nil || !renounced {
		return false
	}
	fields := s.fields()
	if name := outboxName(r.outbox); name != "" {
		fields["outbox"] = name
	}
	r.logger.Error("This outbox is a copy, or was restored from a backup, or a copy of it is in use: it goes on with a new "+
		"identity, and all that it holds is sent again under that; messages can be delivered twice", cause, fields)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.invalidate()
	r.valid, r.invalidate = context.WithCancel(r.ctx)
	return true
}
