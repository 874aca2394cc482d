package amqp

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/buffstreams/watermill-buffstreams/engines/driver"
)

// source is a subscription. in belongs to the goroutine of Fetch.
type source struct {
	b     *broker
	topic string
	group string
	in    <-chan amqp.Delivery

	mu sync.Mutex
	ch *amqp.Channel // guarded by mu
}

// token is a delivery on its channel: after a reconnect the server gives the message again.
type token struct {
	ch  *amqp.Channel
	tag uint64
}

// Consume begins a subscription.
func (b *broker) Consume(ctx context.Context, topic, group string) (driver.Source, error) {
	s := &source{b: b, topic: topic, group: group}
	return s, s.subscribe(ctx)
}

// subscribe opens a channel and consumes.
func (s *source) subscribe(ctx context.Context) error {
	if err := s.b.Declare(ctx, s.topic, s.group); err != nil {
		return err
	}
	conn, err := s.b.connection()
	if err != nil {
		return err
	}
	ch, err := conn.Channel()
	if err != nil {
		return err
	}
	if err := s.consume(ch); err != nil {
		return errors.Join(err, ch.Close())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ch = ch
	return nil
}

func (s *source) consume(ch *amqp.Channel) error {
	queue := queueName(s.topic, s.group)
	if s.group == "" {
		q, err := ch.QueueDeclare("", false, true, true, false, nil)
		if err != nil {
			return err
		}
		queue = q.Name
		if err := s.b.forgetMissing(s.topic, ch.QueueBind(queue, "", s.topic, false, nil)); err != nil {
			return err
		}
	}
	if err := ch.Qos(min(max(s.b.cfg.MaxInFlight, s.b.cfg.Batch), 65535), 0, false); err != nil {
		return err
	}
	in, err := ch.Consume(queue, "", false, false, false, false, nil)
	s.in = in
	return err
}

// Fetch returns what has come, or waits for it. After a lost connection it subscribes again.
func (s *source) Fetch(ctx context.Context, maximum int) ([]driver.Delivery, error) {
	if s.in == nil {
		if err := s.subscribe(ctx); err != nil {
			return nil, err
		}
	}
	select {
	case d, open := <-s.in:
		if !open {
			s.in = nil
			return nil, errors.New("engines: amqp: the subscription's channel is closed")
		}
		deliveries := []driver.Delivery{s.delivery(d)}
		for len(deliveries) < maximum {
			select {
			case d, open := <-s.in:
				if open {
					deliveries = append(deliveries, s.delivery(d))
					continue
				}
			default:
			}
			break
		}
		return deliveries, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (s *source) delivery(d amqp.Delivery) driver.Delivery {
	s.mu.Lock()
	defer s.mu.Unlock()
	return driver.Delivery{Message: decode(d.Headers, d.Body), Token: token{s.ch, d.DeliveryTag}}
}

// current are the tags of those deliveries whose channel is still the one in use, in order. The server gives the others
// again.
func (s *source) current(deliveries []driver.Delivery) (ch *amqp.Channel, tags []uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range deliveries {
		if t := d.Token.(token); t.ch == s.ch { //nolint:forcetypeassert // delivery made it
			tags = append(tags, t.tag)
		}
	}
	slices.SortFunc(tags, cmp.Compare)
	return s.ch, tags
}

// Settle acks deliveries.
func (s *source) Settle(_ context.Context, deliveries []driver.Delivery) error {
	ch, tags := s.current(deliveries)
	for _, tag := range tags {
		if err := ch.Ack(tag, false); err != nil {
			return err
		}
	}
	return nil
}

// Extend has nothing to do: the connection's heartbeats keep the messages.
func (*source) Extend(context.Context, []driver.Delivery) error { return nil }

// Return puts deliveries back to where they were.
func (s *source) Return(_ context.Context, deliveries []driver.Delivery) error {
	ch, tags := s.current(deliveries)
	slices.Reverse(tags)
	for _, tag := range tags {
		if err := ch.Nack(tag, false, true); err != nil {
			return err
		}
	}
	return nil
}

// Close ends the channel. The server puts back what was not acked.
func (s *source) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ch == nil || s.ch.IsClosed() {
		return nil
	}
	return s.ch.Close()
}
