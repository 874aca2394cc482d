package buffstreams

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"sync"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/buffstreams/watermill-buffstreams/internal/acked/sender"
	"github.com/buffstreams/watermill-buffstreams/internal/session"
	"github.com/buffstreams/watermill-buffstreams/route"
	"github.com/buffstreams/watermill-buffstreams/store"
)

// spread sends messages to the targets that the route's policy chooses.
func (p *Publisher) spread(r *resolved, messages []*message.Message) error {
	targets := r.targets
	switch {
	case len(targets) == 1:
		return p.send(targets[0], messages)
	case r.route.Policy == route.All:
		var errs []error
		for _, t := range targets {
			errs = append(errs, p.send(t, messages))
		}
		return errors.Join(errs...)
	case r.route.Policy == route.Failover:
		return p.send(firstConnected(targets), messages)
	}
	parts := make([][]*message.Message, len(targets))
	for _, msg := range messages {
		i := p.pick(&r.route, msg)
		parts[i] = append(parts[i], msg)
	}
	var errs []error
	for i, part := range parts {
		if len(part) > 0 {
			errs = append(errs, p.send(targets[i], part))
		}
	}
	return errors.Join(errs...)
}

// firstConnected returns the first target that is connected, or the first of all. An outbox keeps what an absent target will
// get: with one it is always the first.
func firstConnected(targets []*target) *target {
	for _, t := range targets {
		if t.sender != nil && t.sender.Connected() {
			return t
		}
	}
	return targets[0]
}

// pick returns the index of the address for one message, where the policy chooses message by message.
func (p *Publisher) pick(r *route.Route, msg *message.Message) int {
	if r.Policy == route.Hash {
		return hashIndex(msg.Metadata.Get(r.HashKey), len(r.Addresses))
	}
	return int((p.next.Add(1) - 1) % uint64(len(r.Addresses)))
}

// hashIndex maps a key to one of n addresses.
func hashIndex(key string, n int) int {
	h := fnv.New64a()
	_, _ = h.Write([]byte(key))
	return int(h.Sum64() % uint64(n))
}

var batches = sync.Pool{New: func() any { return new(session.Batch) }}

// send encodes messages and hands them to the sender of their target, or to the outbox.
func (p *Publisher) send(t *target, messages []*message.Message) error {
	batch := batches.Get().(*session.Batch)
	defer func() {
		batch.Reset()
		batches.Put(batch)
	}()
	if err := p.encode(batch, t.topic, messages); err != nil {
		return &PublishError{Topic: t.topic, Peer: t.peer, NotSent: messages, Err: err}
	}
	if p.relay != nil {
		return p.store(t, batch, messages)
	}
	ctx := p.ctx
	if p.cfg.PublishContext {
		merged, cancel := context.WithCancel(messages[0].Context())
		defer cancel()
		defer context.AfterFunc(p.ctx, cancel)()
		ctx = merged
	}
	sent, err := t.sender.Publish(ctx, t.name, batch, p.cfg.Confirm.level(), p.cfg.PublishTimeout)
	if err == nil {
		return nil
	}
	if p.ctx.Err() != nil || errors.Is(err, sender.ErrClosed) {
		err = ErrPublisherClosed
	}
	return &PublishError{Topic: t.topic, Peer: t.peer, NotSent: messages[sent:], Unknown: messages[:sent], Err: err}
}

// encode fills the batch. After an error none of the messages may be sent.
func (p *Publisher) encode(batch *session.Batch, topic string, messages []*message.Message) error {
	for _, msg := range messages {
		full, err := p.cfg.Marshaler.Marshal(batch.Begin(len(msg.Payload)), topic, msg)
		if err != nil {
			return fmt.Errorf("buffstreams: cannot marshal message %q: %w", msg.UUID, err)
		}
		if size, ok := batch.End(full, p.cfg.MaxMessageSize); !ok {
			return &TooLargeError{UUID: msg.UUID, Size: size, Limit: p.cfg.MaxMessageSize}
		}
	}
	return nil
}

// level is what the session waits for; 0 for nothing.
func (c Confirm) level() session.Level {
	switch c {
	case ConfirmReceived:
		return session.Received
	case ConfirmHandled:
		return session.Handled
	}
	return 0
}

// store puts messages into the outbox.
func (p *Publisher) store(t *target, batch *session.Batch, messages []*message.Message) error {
	key := store.Key{Destination: t.peer, Topic: t.name}
	_, err := p.cfg.Outbox.Append(p.ctx, key, batch.Messages()...)
	if err == nil {
		return nil
	}
	failed := &PublishError{Topic: t.topic, Peer: t.peer, NotSent: messages, Err: err}
	// What a failed write left on the disk is only seen when the outbox is opened anew.
	if unconfirmed := (*store.UnconfirmedError)(nil); errors.As(err, &unconfirmed) || errors.Is(err, store.ErrFailed) {
		failed.NotSent, failed.Unknown = nil, messages
	}
	return failed
}
