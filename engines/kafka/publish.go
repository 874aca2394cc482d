package kafka

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/buffstreams/watermill-buffstreams/engines/driver"
)

// Publish stores messages: those of one partition, so of one key, in order, as the producer id has the brokers refuse
// what comes out of order. After the end of ctx the client goes on with what it has sent already.
func (b *broker) Publish(ctx context.Context, asked string, messages []*message.Message) error {
	t, err := b.topic(ctx, asked)
	if err != nil {
		return err
	}
	c := &call{errs: make([]error, len(messages)), left: len(messages), done: make(chan struct{})}
	for i := range c.errs {
		c.errs[i] = errUnanswered
	}
	records := b.encode(t.name, messages)
	for i := range records {
		b.client.Produce(ctx, &records[i], func(_ *kgo.Record, err error) { c.answer(i, err) })
	}
	select {
	case <-c.done:
	case <-ctx.Done():
	}
	errs := c.end()
	for i, err := range errs {
		switch {
		case errors.Is(err, errUnanswered):
			errs[i] = fmt.Errorf("engines: kafka: not confirmed in time, it can still be stored: %w", ctx.Err())
		case err != nil:
			errs[i] = b.explain(asked, err)
		}
	}
	return driver.NewPublishError(errs)
}

// call is a Publish call. Its answers come from the client's goroutine.
type call struct {
	done chan struct{} // closed with the last answer

	mu   sync.Mutex
	errs []error // of each message; guarded by mu, as left
	left int
}

var errUnanswered = errors.New("not answered")

func (c *call) answer(index int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.errs != nil {
		c.errs[index] = err
	}
	if c.left--; c.left == 0 {
		close(c.done)
	}
}

// end returns what was answered. Later answers change nothing.
func (c *call) end() []error {
	c.mu.Lock()
	defer c.mu.Unlock()
	errs := c.errs
	c.errs = nil
	return errs
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

// encode makes records: the headers are the metadata and the UUID, as watermill-kafka has them. All of a call share
// memory.
func (b *broker) encode(topic string, messages []*message.Message) []kgo.Record {
	records := make([]kgo.Record, len(messages))
	headers := make([]kgo.RecordHeader, 0, 4*len(messages))
	text := make([]byte, 0, 128*len(messages))
	copied := func(s string) []byte {
		text = append(text, s...) // in other memory, if there is no room: what is in this one stays as it is
		return text[len(text)-len(s) : len(text) : len(text)]
	}
	for i, msg := range messages {
		first := len(headers)
		headers = append(headers, kgo.RecordHeader{Key: driver.UUIDHeader, Value: copied(msg.UUID)})
		if id := driver.ID(msg); id != "" {
			headers = append(headers, kgo.RecordHeader{Key: driver.IDHeader, Value: copied(id)})
		}
		for k, v := range msg.Metadata {
			headers = append(headers, kgo.RecordHeader{Key: k, Value: copied(v)})
		}
		records[i] = kgo.Record{Topic: topic, Value: msg.Payload, Headers: headers[first:len(headers):len(headers)]}
		if b.cfg.Key != "" {
			if key := msg.Metadata.Get(b.cfg.Key); key != "" {
				records[i].Key = copied(key)
			}
		}
	}
	return records
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
