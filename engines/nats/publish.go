package nats

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"

	"github.com/buffstreams/watermill-buffstreams/engines/driver"
	"github.com/buffstreams/watermill-buffstreams/engines/internal/parts"
)

// The most that one batch holds. The server's own limit is 1000 messages.
const (
	maxBatch   = 1000
	batchBytes = 4 << 20
)

// The server's codes that are about one message.
const (
	codeMessageTooLarge jetstream.ErrorCode = 10054
	codeHeaderTooLarge  jetstream.ErrorCode = 10097
)

// atomicAttempts is how often a batch is refused before its messages are published one by one, so that each gets its
// own error.
const atomicAttempts = 5

// Publish stores messages in order: in batches of which all or nothing is stored, and one by one where the stream takes
// no batches, or has part of one already. Each message has an ID within the call at least, so that what is published
// again after a lost answer is stored once.
func (b *broker) Publish(ctx context.Context, topic string, messages []*message.Message) error {
	var s *stream
	err := retry(ctx, func() (err error) {
		s, err = b.stream(ctx, topic)
		return err
	})
	if err != nil {
		return err
	}
	encoded := make([]*nats.Msg, len(messages))
	for i, msg := range messages {
		encoded[i] = encode(s.subject, msg)
	}
	limit := parts.Limit{Messages: min(cmp.Or(b.cfg.Batch, maxBatch), maxBatch), Bytes: batchBytes}
	return parts.Publish(encoded, limit, sizeOf, func(part []*nats.Msg, errs []error) error { return b.publishPart(ctx, topic, s, part, errs) })
}

// sizeOf is about what a message takes on the wire. The client's own count encodes the headers.
func sizeOf(m *nats.Msg) int {
	size := len(m.Data)
	for k, v := range m.Header {
		size += len(k) + len(v[0]) + 4
	}
	return size
}

// publishPart publishes one batch, and the halves of one that the stream refuses as a whole: of a batch it does not say
// which message it is about. It is a parts.Store.
func (b *broker) publishPart(ctx context.Context, topic string, s *stream, messages []*nats.Msg, errs []error) error {
	if len(messages) == 1 || !s.atomic {
		return b.publishEach(ctx, topic, messages, errs)
	}
	pause := backoff{}
	for range atomicAttempts {
		err := b.publishAtomic(ctx, messages)
		if err == nil {
			return nil
		}
		if refusesBatch(err) {
			return parts.Halves(messages, errs, func(part []*nats.Msg, errs []error) error { return b.publishPart(ctx, topic, s, part, errs) })
		}
		if final(err) || !pause.wait(ctx) {
			return parts.Fail(errs, err)
		}
	}
	return b.publishEach(ctx, topic, messages, errs)
}

// publishEach publishes messages one by one, each until it is stored or refused.
func (b *broker) publishEach(ctx context.Context, topic string, messages []*nats.Msg, errs []error) error {
	for i, m := range messages {
		err := retry(ctx, func() error {
			err := b.publishOne(ctx, m)
			if errors.Is(err, jetstream.ErrNoStreamResponse) {
				err = errors.Join(err, b.streamAgain(ctx, topic))
			}
			if refusal(err) {
				errs[i], err = &driver.RefusedError{Engine: name, Topic: topic, Err: err}, nil
			}
			return err
		})
		if err != nil {
			return parts.Fail(errs[i:], err)
		}
	}
	return nil
}

// refusesBatch reports whether the stream refuses a batch because of what is in it: a message that is too large, or
// that it has already.
func refusesBatch(err error) bool {
	var api *jetstream.APIError
	return refusal(err) || errors.As(err, &api) && api.Code == 400 && !full(err)
}

// refusal reports whether an error is of the message.
func refusal(err error) bool {
	return errors.Is(err, nats.ErrMaxPayload) || isCode(err, codeMessageTooLarge) || isCode(err, codeHeaderTooLarge)
}

// publishOne publishes a message and waits for the stream's answer.
func (b *broker) publishOne(ctx context.Context, m *nats.Msg) error {
	for _, key := range []string{batchIDHeader, batchSequenceHeader, batchCommitHeader} {
		delete(m.Header, key)
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	ctx, done := b.asks(ctx, m.Subject)
	defer done()
	_, err := b.js.PublishMsg(ctx, m, jetstream.WithRetryAttempts(0))
	err = answerOf(ctx, err)
	if refusal(err) {
		err = fmt.Errorf("%w: %w", driver.ErrTooLarge, err)
	}
	return err
}

// The headers of atomic batches.
const (
	batchIDHeader       = "Nats-Batch-Id"
	batchSequenceHeader = "Nats-Batch-Sequence"
	batchCommitHeader   = "Nats-Batch-Commit"
)

// publishAtomic publishes messages of which all are stored, in their order, or none. Only the last one is answered.
func (b *broker) publishAtomic(ctx context.Context, messages []*nats.Msg) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	ctx, done := b.asks(ctx, messages[0].Subject)
	defer done()
	id := nuid.Next()
	last := len(messages) - 1
	for i, m := range messages {
		m.Header[batchIDHeader] = []string{id}
		m.Header[batchSequenceHeader] = []string{strconv.Itoa(i + 1)}
		if i < last {
			if err := b.nc.PublishMsg(m); err != nil {
				return err
			}
		}
	}
	messages[last].Header[batchCommitHeader] = []string{"1"}
	answer, err := b.nc.RequestMsgWithContext(ctx, messages[last])
	if err != nil {
		return answerOf(ctx, err)
	}
	var ack struct {
		Error  *jetstream.APIError `json:"error"`
		Stream string              `json:"stream"`
		Count  int                 `json:"count"`
	}
	if err := json.Unmarshal(answer.Data, &ack); err != nil {
		return fmt.Errorf("engines: nats: the answer to a batch cannot be read: %w", err)
	}
	if ack.Error != nil {
		return ack.Error
	}
	if ack.Stream == "" || ack.Count != len(messages) {
		return fmt.Errorf("engines: nats: the stream confirmed %d of a batch of %d", ack.Count, len(messages))
	}
	return nil
}

// codeNoPeers says that a cluster has too few nodes for a stream now: most often one of them is away, or has only come,
// and the cluster does not count it.
const codeNoPeers jetstream.ErrorCode = 10005

// fullAttempts is how often a server that has no room is asked before the caller is told.
const fullAttempts = 5

// retry calls f until it returns nil, a refusal, or ctx is done.
func retry(ctx context.Context, f func() error) error {
	pause := backoff{}
	for attempts := 1; ; attempts++ {
		err := f()
		if err == nil || final(err) || full(err) && attempts >= fullAttempts || !pause.wait(ctx) {
			return err
		}
	}
}

// final reports whether the caller has to know at once: trying again is of no use, or not before a person has helped.
func final(err error) bool {
	var api *jetstream.APIError
	return errors.Is(err, driver.ErrNoTopic) || errors.Is(err, nats.ErrConnectionClosed) || errors.Is(err, nats.ErrPermissionViolation) ||
		errors.As(err, &api) && api.Code == 400 && api.ErrorCode != codeNoPeers && !full(err)
}

// backoff waits longer each time, from 10 ms to 1 s.
type backoff struct{ last time.Duration }

// wait returns false if ctx is done.
func (b *backoff) wait(ctx context.Context) bool {
	b.last = min(max(2*b.last, 10*time.Millisecond), time.Second)
	timer := time.NewTimer(b.last)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
