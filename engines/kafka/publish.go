package kafka

import (
	"context"
	"errors"
	"fmt"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/buffstreams/watermill-buffstreams/engines/driver"
)

// Publish stores messages: those of one partition, so of one key, in order, as the producer id has the brokers refuse what
// comes out of order. After the end of ctx the client goes on with what it has sent already.
func (b *broker) Publish(ctx context.Context, asked string, messages []*message.Message) error {
	t, err := b.topic(ctx, asked)
	if err != nil {
		return err
	}
	type result struct {
		index int
		err   error
	}
	results := make(chan result, len(messages))
	errs := make([]error, len(messages))
	for i, msg := range messages {
		b.client.Produce(ctx, b.encode(t.name, msg), func(_ *kgo.Record, err error) { results <- result{i, err} })
		errs[i] = context.Canceled // until its result is there
	}
	for range messages {
		select {
		case r := <-results:
			errs[r.index] = b.explain(asked, r.err)
		case <-ctx.Done():
			for i := range errs {
				if errors.Is(errs[i], context.Canceled) {
					errs[i] = fmt.Errorf("engines: kafka: not confirmed in time, it can still be stored: %w", ctx.Err())
				}
			}
			return driver.NewPublishError(errs)
		}
	}
	return driver.NewPublishError(errs)
}

// explain tells errors of a message from those of the engine.
func (b *broker) explain(topic string, err error) error {
	if errors.Is(err, kerr.MessageTooLarge) || errors.Is(err, kerr.RecordListTooLarge) {
		err = fmt.Errorf("%w: %w", driver.ErrTooLarge, err)
		return &driver.RefusedError{Engine: name, Topic: topic, Err: err}
	}
	if gone(err) {
		b.forget(topic)
	}
	if errors.Is(err, kerr.InvalidRecord) {
		return &driver.RefusedError{Engine: name, Topic: topic, Err: err}
	}
	return err
}

// gone reports whether a topic was deleted.
func gone(err error) bool {
	return errors.Is(err, kerr.UnknownTopicOrPartition) || errors.Is(err, kerr.UnknownTopicID)
}

// forget has the next call find a topic, or make it again.
func (b *broker) forget(asked string) {
	b.mu.Lock()
	t, known := b.topics[asked]
	delete(b.topics, asked)
	b.mu.Unlock()
	if known {
		b.client.PurgeTopicsFromProducing(t.name) // one that is made again has another ID
	}
}

// encode makes a record: the headers are the metadata and the UUID, as watermill-kafka has them.
func (b *broker) encode(topic string, msg *message.Message) *kgo.Record {
	r := &kgo.Record{Topic: topic, Value: msg.Payload, Headers: make([]kgo.RecordHeader, 0, len(msg.Metadata)+2)}
	r.Headers = append(r.Headers, kgo.RecordHeader{Key: driver.UUIDHeader, Value: []byte(msg.UUID)})
	if id := driver.ID(msg); id != "" {
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: driver.IDHeader, Value: []byte(id)})
	}
	for k, v := range msg.Metadata {
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: k, Value: []byte(v)})
	}
	if b.cfg.Key != "" {
		if key := msg.Metadata.Get(b.cfg.Key); key != "" {
			r.Key = []byte(key)
		}
	}
	return r
}

func decode(r *kgo.Record) *message.Message {
	msg := message.NewMessage("", r.Value)
	for _, h := range r.Headers {
		switch h.Key {
		case driver.UUIDHeader:
			msg.UUID = string(h.Value)
		case driver.IDHeader:
		default:
			msg.Metadata.Set(h.Key, string(h.Value))
		}
	}
	return msg
}
