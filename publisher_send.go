package buffstreams

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
	"unsafe"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/buffstreams/watermill-buffstreams/internal/acked/sender"
	"github.com/buffstreams/watermill-buffstreams/internal/policy"
	"github.com/buffstreams/watermill-buffstreams/internal/session"
)

var batches = sync.Pool{New: func() any { return new(session.Batch) }}

// sendDirect sends messages of which all go to one address that is known to be usable: most calls are such, and need
// none of what calls need that wait for an address or have several parts. ok is false if this call is another one:
// nothing was done.
func (p *Publisher) sendDirect(s *topicState, r *resolved, messages []*message.Message, timeout time.Duration) (ok bool, err error) {
	if r.single() {
		return true, p.sendAll(r.targets[0], r.targets[0].fixed, messages, timeout)
	}
	if len(r.groups) > 1 || p.relay != nil {
		return false, nil
	}
	g := r.groups[0].latest()
	if !g.started.Load() || g.left() {
		return false, nil
	}
	at := g.assignAll(p.view(g), len(messages), int(s.calls.Load()))
	if at == policy.None || !g.targets[at].enter() {
		return false, nil
	}
	t := g.targets[at]
	defer t.end()
	return true, p.sendAll(t, p.flow(g, t), messages, timeout)
}

// single tells that all messages go to one address, whose stream cannot move.
func (r *resolved) single() bool {
	return len(r.targets) == 1 && (r.targets[0].fixed != nil || r.targets[0].addr == nil)
}

// sendAll is send for a call that needs no more than one target.
func (p *Publisher) sendAll(t *target, s *routedStream, messages []*message.Message, timeout time.Duration) error {
	ctx, cancel := p.callContext(messages[0])
	defer cancel()
	enqueued, lacking, err := p.send(ctx, t, s, messages, timeout)
	if err == nil {
		return nil
	}
	if back := (*sender.WithdrawnError)(nil); errors.As(err, &back) {
		return p.sendAllAgain(s.group, t, messages, sendResult{enqueued: enqueued, lacking: lacking}, back)
	}
	failed := &PublishError{Topic: t.topic, Peer: t.peer, NotSent: messages[enqueued:], Err: err}
	for _, r := range lacking {
		failed.Unknown = append(failed.Unknown, messages[r.First:r.Last+1]...)
	}
	return failed
}

// sendResult is what became of messages: none but those that were enqueued will be sent, and of these the lacking ones
// have not reached the confirm level.
type sendResult struct {
	enqueued int
	lacking  []session.Range // of indices
	missing  []session.Range // of indices: were not sent, though they are below enqueued
	err      error           // nil: all have reached it
}

// send encodes messages and hands them to a stream, or to the outbox. It returns the parts of a sendResult, where err
// can be a *sender.WithdrawnError.
func (p *Publisher) send(
	ctx context.Context, t *target, s *routedStream, messages []*message.Message, timeout time.Duration,
) (enqueued int, lacking []session.Range, err error) {
	batch := batches.Get().(*session.Batch) //nolint:forcetypeassert // the pool holds nothing else
	defer func() {
		batch.Reset()
		batches.Put(batch)
	}()
	if err := p.encode(batch, t.topic, messages); err != nil {
		return 0, nil, err
	}
	if p.relay != nil {
		return p.store(ctx, t, batch, messages, timeout)
	}
	if p.cfg.Ephemeral {
		timeout = ephemeralTimeout(timeout)
	}
	enqueued, lacking, err = s.stream.Publish(ctx, batch, p.cfg.Confirm.level(), timeout)
	if err == nil {
		return 0, nil, nil
	}
	if p.cfg.Ephemeral && errors.Is(err, ErrTopicGone) {
		for _, encoded := range batch.Messages()[enqueued:] { // those that were enqueued come to onRefused
			p.drop(t.peer, t.name, bytes.Clone(encoded), err)
		}
		return 0, nil, nil
	}
	closing := p.ctx.Err() != nil || errors.Is(err, sender.ErrClosed)
	if back := (*sender.WithdrawnError)(nil); errors.As(err, &back) {
		if back.Err != nil && closing {
			back.Err = p.closedError()
		}
		return enqueued, lacking, back
	}
	if closing {
		err = p.closedError()
	}
	return enqueued, lacking, err
}

// callContext is done when what a call waits for has to end: with Close, or with the context of its first message where
// that counts.
func (p *Publisher) callContext(first *message.Message) (context.Context, context.CancelFunc) {
	if !p.cfg.PublishContext || first == nil {
		return p.ctx, func() {}
	}
	ctx, cancel := context.WithCancel(first.Context())
	stop := context.AfterFunc(p.ctx, cancel)
	return ctx, func() { stop(); cancel() }
}

// encode fills the batch. After an error none of the messages may be sent.
func (p *Publisher) encode(batch *session.Batch, topic string, messages []*message.Message) (err error) {
	var msg *message.Message
	defer func() {
		if panicked := recover(); panicked != nil {
			err = marshalerPanicked(msg, panicked)
		}
	}()
	for _, msg = range messages {
		if msg == nil {
			return errNoMessage
		}
		full, err := p.marshal(batch.Begin(len(msg.Payload)), topic, msg)
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

// marshal appends the encoded message to dst. The Marshaler gets an empty slice with the room behind dst. What it
// returns is copied unless it is there: it may return other memory than it was given, or keep it.
func (p *Publisher) marshal(dst []byte, topic string, msg *message.Message) (full []byte, err error) {
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

// marshalOne is marshal where the Marshaler may panic, and there may be no message.
func (p *Publisher) marshalOne(dst []byte, topic string, msg *message.Message) (full []byte, err error) {
	if msg == nil {
		return nil, errNoMessage
	}
	defer func() {
		if panicked := recover(); panicked != nil {
			full, err = nil, marshalerPanicked(msg, panicked)
		}
	}()
	return p.marshal(dst, topic, msg)
}

func marshalerPanicked(msg *message.Message, panicked any) error {
	return fmt.Errorf("buffstreams: cannot marshal message %.100q: the Marshaler panicked: %v", msg.UUID, panicked)
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

// stream is where messages are enqueued: what one Publisher has in the stream that all of a Manager share
// (*sender.Named), or one of a route's that can move (*sender.Stream).
type stream interface {
	Publish(ctx context.Context, b *session.Batch, level session.Level, timeout time.Duration) (enqueued int, lacking []session.Range, err error)
	Unsettled() int
	Flush(ctx context.Context) error
	Drain(ctx context.Context) error
	AwaitReceived(ctx context.Context) (left int)
}
