package amqp

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/buffstreams/watermill-buffstreams/engines/driver"
)

// errNoQueue means that no group has subscribed to a topic: nothing would hold the message.
var errNoQueue = errors.New("engines: amqp: no queue is bound to the topic's exchange: no group has subscribed yet")

// confirmer is a channel whose messages the server confirms. One Publish call uses it at a time.
type confirmer struct {
	ch      *amqp.Channel
	returns chan amqp.Return
}

// maxBatch is how many messages are on their way at a time.
const maxBatch = 1000

// take returns a channel that no other call uses.
func (b *broker) take() (*confirmer, error) {
	conn, err := b.connection()
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	for len(b.idle) > 0 {
		c := b.idle[len(b.idle)-1]
		b.idle = b.idle[:len(b.idle)-1]
		if !c.ch.IsClosed() {
			b.mu.Unlock()
			return c, nil
		}
	}
	b.mu.Unlock()
	ch, err := conn.Channel()
	if err != nil {
		return nil, err
	}
	if err := ch.Confirm(false); err != nil {
		return nil, errors.Join(err, ch.Close())
	}
	return &confirmer{ch: ch, returns: ch.NotifyReturn(make(chan amqp.Return, maxBatch))}, nil
}

func (b *broker) give(c *confirmer) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !c.ch.IsClosed() {
		b.idle = append(b.idle, c)
	}
}

// Publish publishes messages, in order, and waits for the queues' confirms. While no group has subscribed it waits for one.
func (b *broker) Publish(ctx context.Context, topic string, messages []*message.Message) error {
	limit := maxBatch
	if b.cfg.Batch > 0 {
		limit = min(limit, b.cfg.Batch)
	}
	errs := make([]error, len(messages))
	for from := 0; from < len(messages); {
		to := min(from+limit, len(messages))
		err := b.publishPart(ctx, topic, messages[from:to], errs[from:to])
		for errors.Is(err, errNoQueue) && pause(ctx) {
			err = b.publishPart(ctx, topic, messages[from:to], errs[from:to])
		}
		if err != nil {
			for i := to; i < len(errs); i++ {
				errs[i] = err
			}
			break
		}
		from = to
	}
	return driver.NewPublishError(errs)
}

// pause returns false if ctx is done.
func pause(ctx context.Context) bool {
	timer := time.NewTimer(50 * time.Millisecond)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// publishPart publishes some messages. It sets their errors, and returns the first.
func (b *broker) publishPart(ctx context.Context, topic string, messages []*message.Message, errs []error) error {
	confirms := make([]*amqp.DeferredConfirmation, len(messages))
	c, err := b.take()
	if err == nil {
		err = b.exchange(topic)
	}
	for i, msg := range messages {
		if err == nil {
			confirms[i], err = c.ch.PublishWithDeferredConfirmWithContext(ctx, topic, "", true, false, encode(msg, i))
		}
		errs[i] = err
	}
	first := err
	for i, confirm := range confirms {
		if errs[i] != nil {
			continue
		}
		acked, err := confirm.WaitContext(ctx)
		switch {
		case err != nil:
			errs[i] = fmt.Errorf("engines: amqp: not confirmed in time, it can still be stored: %w", err)
		case !acked:
			errs[i] = errors.New("engines: amqp: the server, or a lost connection, has not confirmed a message")
		}
		if first == nil {
			first = errs[i]
		}
	}
	if c == nil {
		return first
	}
	for len(c.returns) > 0 { // they came before their confirms
		r := <-c.returns
		if i, err := strconv.Atoi(r.CorrelationId); err == nil && i < len(errs) {
			errs[i], first = errNoQueue, errNoQueue
		}
	}
	if first == nil || errors.Is(first, errNoQueue) {
		b.give(c)
	} else {
		_ = c.ch.Close()
	}
	return first
}

// encode makes a publishing: the headers are the metadata and the UUID, as watermill-amqp has them.
func encode(msg *message.Message, index int) amqp.Publishing {
	headers := make(amqp.Table, len(msg.Metadata)+2)
	for k, v := range msg.Metadata {
		headers[k] = v
	}
	headers[driver.UUIDHeader] = msg.UUID
	if id := driver.ID(msg); id != "" {
		headers[driver.IDHeader] = id
	}
	return amqp.Publishing{Headers: headers, Body: msg.Payload, DeliveryMode: amqp.Persistent, CorrelationId: strconv.Itoa(index)}
}

func decode(headers amqp.Table, body []byte) *message.Message {
	msg := message.NewMessage("", body)
	for k, v := range headers {
		text, ok := v.(string)
		switch {
		case !ok, k == driver.IDHeader, k == "x-delivery-count":
		case k == driver.UUIDHeader:
			msg.UUID = text
		default:
			msg.Metadata.Set(k, text)
		}
	}
	return msg
}
