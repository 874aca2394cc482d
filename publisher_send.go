package buffstreams

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"sync"
	"time"
	"unsafe"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/buffstreams/watermill-buffstreams/internal/acked/sender"
	"github.com/buffstreams/watermill-buffstreams/internal/hook"
	"github.com/buffstreams/watermill-buffstreams/internal/session"
	"github.com/buffstreams/watermill-buffstreams/route"
	"github.com/buffstreams/watermill-buffstreams/store"
)

// spread sends messages to the targets that the route's policy chooses, and waits for each of them for timeout; 0 is no bound.
func (p *Publisher) spread(r *resolved, messages []*message.Message, timeout time.Duration) error {
	targets := r.targets
	switch {
	case len(targets) == 1:
		return p.send(targets[0], messages, timeout)
	case r.route.Policy == route.All:
		var errs []error
		for _, t := range targets {
			errs = append(errs, p.send(t, messages, timeout))
		}
		return errors.Join(errs...)
	case r.route.Policy == route.Failover:
		return p.send(firstConnected(targets), messages, timeout)
	}
	parts := make([][]*message.Message, len(targets))
	for _, msg := range messages {
		i := p.pick(&r.route, msg)
		parts[i] = append(parts[i], msg)
	}
	var errs []error
	for i, part := range parts {
		if len(part) > 0 {
			errs = append(errs, p.send(targets[i], part, timeout))
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
func (p *Publisher) send(t *target, messages []*message.Message, timeout time.Duration) error {
	batch := batches.Get().(*session.Batch) //nolint:forcetypeassert // the pool holds nothing else
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
	ctx, cancel := p.callContext(messages[0])
	defer cancel()
	if p.cfg.Ephemeral {
		timeout = ephemeralTimeout(timeout)
	}
	sent, lacking, err := t.sender.Publish(ctx, t.stream, batch, p.cfg.Confirm.level(), timeout)
	if err == nil {
		return nil
	}
	if p.cfg.Ephemeral && errors.Is(err, ErrTopicGone) {
		for _, encoded := range batch.Messages()[sent:] { // those that were enqueued come to onRefused
			p.drop(t.peer, t.name, bytes.Clone(encoded), err)
		}
		return nil
	}
	if p.ctx.Err() != nil || errors.Is(err, sender.ErrClosed) {
		err = ErrPublisherClosed
	}
	failed := &PublishError{Topic: t.topic, Peer: t.peer, NotSent: messages[sent:], Err: err}
	for _, r := range lacking {
		failed.Unknown = append(failed.Unknown, messages[r.First:r.Last+1]...)
	}
	return failed
}

// callContext is done when what a call waits for has to end: with Close, or with the context of its first message where that
// counts.
func (p *Publisher) callContext(first *message.Message) (context.Context, context.CancelFunc) {
	if !p.cfg.PublishContext {
		return p.ctx, func() {}
	}
	ctx, cancel := context.WithCancel(first.Context())
	stop := context.AfterFunc(p.ctx, cancel)
	return ctx, func() { stop(); cancel() }
}

// encode fills the batch. After an error none of the messages may be sent.
func (p *Publisher) encode(batch *session.Batch, topic string, messages []*message.Message) error {
	for _, msg := range messages {
		hint := 0
		if msg != nil {
			hint = len(msg.Payload)
		}
		full, err := p.marshal(batch.Begin(hint), topic, msg)
		if err != nil {
			return err
		}
		if size, ok := batch.End(full, p.cfg.MaxMessageSize); !ok {
			return &TooLargeError{UUID: msg.UUID, Size: size, Limit: p.cfg.MaxMessageSize}
		}
	}
	return nil
}

// The errors of messages that cannot be encoded.
var (
	errNoMessage = errors.New("buffstreams: a message is nil")
	errNoBytes   = errors.New("the Marshaler returned neither bytes nor an error")
)

// marshal appends the encoded message to dst. The Marshaler gets an empty slice with the room behind dst. What it returns is
// copied unless it is there: it may return other memory than it was given, or keep it.
func (p *Publisher) marshal(dst []byte, topic string, msg *message.Message) (full []byte, err error) {
	if msg == nil {
		return nil, errNoMessage
	}
	defer func() {
		if panicked := recover(); panicked != nil {
			err = fmt.Errorf("buffstreams: cannot marshal message %.100q: the Marshaler panicked: %v", msg.UUID, panicked)
		}
	}()
	room := dst[len(dst):]
	encoded, err := p.cfg.Marshaler.Marshal(room, topic, msg)
	if err == nil && encoded == nil {
		err = errNoBytes
	}
	if err != nil {
		return nil, fmt.Errorf("buffstreams: cannot marshal message %.100q: %w", msg.UUID, err)
	}
	if cap(room) > 0 && unsafe.SliceData(encoded) == unsafe.SliceData(room) { //nolint:gosec // compares pointers, reads nothing
		return dst[:len(dst)+len(encoded)], nil
	}
	return append(dst, encoded...), nil
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
	p.users.published(p, key)
	_, err := p.cfg.Outbox.Append(p.ctx, key, batch.Messages()...)
	if err == nil {
		return nil
	}
	failed := &PublishError{Topic: t.topic, Peer: t.peer, NotSent: messages, Err: err}
	// What a failed write left on the disk is only seen when the outbox is opened anew.
	unconfirmed, panicked := (*store.UnconfirmedError)(nil), (*hook.PanicError)(nil)
	if errors.As(err, &unconfirmed) || errors.As(err, &panicked) || errors.Is(err, store.ErrFailed) {
		failed.NotSent, failed.Unknown = nil, messages
	}
	return failed
}
