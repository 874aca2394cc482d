package amqp

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/buffstreams/watermill-buffstreams/engines/driver"
	"github.com/buffstreams/watermill-buffstreams/engines/internal/parts"
)

// errNoQueue means that no group has subscribed to a topic: nothing would hold the message.
var errNoQueue = errors.New("engines: amqp: no queue is bound to the topic's exchange: no group has subscribed yet")

// errNacked means that a queue did not take a message.
var errNacked = errors.New("engines: amqp: a queue of the topic does not take the message: it has reached its length, or has no quorum")

// errSize means that the server has ended a channel because of a message: it is larger than its max_message_size.
var errSize = errors.New("engines: amqp: the server refuses the message")

// confirmer is a channel whose messages the server confirms. One Publish call uses it at a time.
type confirmer struct {
	ch      *amqp.Channel
	returns chan amqp.Return
	end     chan *amqp.Error // has why the channel ended, before its confirms do
}

// maxBatch is how many messages are on their way at a time.
const maxBatch = 1000

// take returns a channel that no other call uses.
func (b *broker) take() (*confirmer, error) {
	b.mu.Lock()
	conn, err := b.publisherLocked()
	if err == nil {
		err = b.blockedLocked()
	}
	for err == nil && len(b.idle) > 0 {
		c := b.idle[len(b.idle)-1]
		b.idle = b.idle[:len(b.idle)-1]
		if !c.ch.IsClosed() {
			b.mu.Unlock()
			return c, nil
		}
	}
	b.mu.Unlock()
	if err != nil {
		return nil, err
	}
	ch, err := conn.Channel()
	if err != nil {
		return nil, err
	}
	c := &confirmer{ch: ch, returns: ch.NotifyReturn(make(chan amqp.Return, maxBatch)), end: ch.NotifyClose(make(chan *amqp.Error, 1))}
	if err := ch.Confirm(false); err != nil {
		return nil, errors.Join(err, ch.Close())
	}
	return c, nil
}

// give takes a channel back: for the next call, or to be closed where an answer of this one can still come.
func (b *broker) give(c *confirmer, whole bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case c.ch.IsClosed():
	case whole:
		b.idle = append(b.idle, c)
	case !b.closed:
		b.tasks.Go(func() { _ = c.ch.Close() }) // ends with the connection: a server without room does not answer
	}
}

// Publish publishes messages, in order, and waits for the queues' confirms. While no group has subscribed it waits for
// one.
func (b *broker) Publish(ctx context.Context, topic string, messages []*message.Message) error {
	limit := parts.Limit{Messages: min(cmp.Or(b.cfg.Batch, maxBatch), maxBatch), Bytes: math.MaxInt}
	return parts.Publish(messages, limit, driver.Size, func(part []*message.Message, errs []error) error {
		err := b.publishPart(ctx, topic, part, errs)
		for wait(err) && pause(ctx) {
			err = b.publishPart(ctx, topic, part, errs)
		}
		if errors.Is(err, errSize) {
			err = b.publishEach(ctx, topic, part, errs)
		}
		return err
	})
}

// wait reports whether nothing of a part was stored, and it can be later.
func wait(err error) bool { return errors.Is(err, errNoQueue) || errors.Is(err, errBlocked) }

// publishEach publishes the messages of a part that are not confirmed one by one, as the server does not say which of
// them is too large.
func (b *broker) publishEach(ctx context.Context, topic string, messages []*message.Message, errs []error) error {
	for i := range messages {
		if errs[i] == nil {
			continue
		}
		err := b.publishPart(ctx, topic, messages[i:i+1], errs[i:i+1])
		if errors.Is(err, errSize) {
			errs[i] = &driver.RefusedError{Engine: name, Topic: topic, Err: fmt.Errorf("%w: %w", driver.ErrTooLarge, err)}
			continue
		}
		if err != nil {
			return parts.Fail(errs[i:], err)
		}
	}
	return nil
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
	err := b.exchange(topic)
	var c *confirmer
	if err == nil {
		c, err = b.take()
	}
	if err != nil {
		return parts.Fail(errs, err)
	}
	confirms := make([]*amqp.DeferredConfirmation, len(messages))
	for i, msg := range messages {
		if err == nil {
			confirms[i], err = c.ch.PublishWithDeferredConfirmWithContext(ctx, topic, "", true, false, encode(msg, i))
		}
		errs[i] = err
	}
	first := b.await(ctx, topic, c, confirms, errs)
	for len(c.returns) > 0 { // they came before their confirms
		r := <-c.returns
		if i, err := strconv.Atoi(r.CorrelationId); err == nil && i < len(errs) {
			errs[i], first = errNoQueue, errNoQueue
		}
	}
	b.give(c, first == nil || errors.Is(first, errNoQueue) || errors.Is(first, errNacked))
	return first
}

// await waits for the confirms, sets the errors of those that do not come, and returns the first error of all.
func (b *broker) await(ctx context.Context, topic string, c *confirmer, confirms []*amqp.DeferredConfirmation, errs []error) (first error) {
	var ended error
	for i, confirm := range confirms {
		if confirm != nil {
			acked, err := confirm.WaitContext(ctx)
			switch {
			case err != nil:
				errs[i] = errors.Join(b.whyBlocked(), fmt.Errorf("engines: amqp: not confirmed in time, it can still be stored: %w", err))
			case !acked && !c.ch.IsClosed():
				errs[i] = errNacked
			case !acked:
				ended = b.why(topic, c, ended)
				errs[i] = ended
			}
		}
		if confirm == nil && c.ch.IsClosed() {
			ended = b.why(topic, c, ended)
			errs[i] = ended
		}
		if first == nil {
			first = errs[i]
		}
	}
	return first
}

// why returns why a channel has ended.
func (b *broker) why(topic string, c *confirmer, known error) error {
	if known != nil {
		return known
	}
	var end *amqp.Error
	select {
	case end = <-c.end:
	default:
	}
	switch {
	case end == nil:
		return errors.New("engines: amqp: the connection was lost before a message was confirmed, it can still be stored")
	case end.Code == amqp.PreconditionFailed:
		return fmt.Errorf("%w: %w", errSize, end)
	}
	return fmt.Errorf("engines: amqp: not confirmed: %w", b.forgetMissing(topic, end))
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
