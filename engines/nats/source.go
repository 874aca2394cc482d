package nats

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/buffstreams/watermill-buffstreams/engines/driver"
)

// source is a subscription. pending and settleFirst belong to the goroutine of Fetch.
type source struct {
	b        *broker
	consumer jetstream.Consumer
	stream   *stream
	group    string

	pending jetstream.MessageBatch // of a request that is not through
	// inOrder tells that what the member before had in hand must come first.
	inOrder bool
}

// Consume begins a subscription.
func (b *broker) Consume(ctx context.Context, topic, group string) (driver.Source, error) {
	ctx, cancel := context.WithTimeout(ctx, b.cfg.PublishTimeout)
	defer cancel()
	s, err := b.stream(ctx, topic)
	if err != nil {
		return nil, err
	}
	consumer, err := b.consumer(ctx, s, group)
	if err != nil {
		return nil, err
	}
	return &source{b: b, consumer: consumer, stream: s, group: group, inOrder: group != "" && b.cfg.Members == 1}, nil
}

// fetchWait is how long one request for messages stands.
const fetchWait = 5 * time.Second

// Fetch reads what a standing request has brought, and makes one where there is none.
func (s *source) Fetch(ctx context.Context, maximum int) ([]driver.Delivery, error) {
	if s.inOrder {
		if err := s.awaitRedelivery(ctx); err != nil {
			return nil, err
		}
		s.inOrder = false
	}
	for ctx.Err() == nil {
		if s.pending == nil {
			batch, err := s.consumer.Fetch(maximum, jetstream.FetchMaxWait(fetchWait), jetstream.FetchHeartbeat(fetchWait/3))
			if err != nil {
				return nil, err
			}
			s.pending = batch
		}
		select {
		case msg, more := <-s.pending.Messages():
			if !more {
				err := s.pending.Error()
				s.pending = nil
				if err != nil && !errors.Is(err, nats.ErrTimeout) {
					return nil, err
				}
				continue
			}
			return s.take(msg, maximum), nil
		case <-ctx.Done():
		}
	}
	return nil, ctx.Err()
}

// take returns a message and those that have come with it.
func (s *source) take(msg jetstream.Msg, maximum int) []driver.Delivery {
	deliveries := []driver.Delivery{s.delivery(msg)}
	for len(deliveries) < maximum {
		select {
		case msg, more := <-s.pending.Messages():
			if !more {
				return deliveries // the next Fetch sees to it
			}
			deliveries = append(deliveries, s.delivery(msg))
			continue
		default:
		}
		break
	}
	return deliveries
}

func (s *source) delivery(msg jetstream.Msg) driver.Delivery {
	d := driver.Delivery{Message: decode(msg.Headers(), msg.Data()), Token: msg}
	if meta, err := msg.Metadata(); err == nil {
		d.ID = s.stream.id + strconv.FormatUint(meta.Sequence.Stream, 10)
	}
	return d
}

// awaitRedelivery waits until the server gives again what an earlier member had in hand when it died, which it then does
// before anything new. Without that the messages behind would come first.
func (s *source) awaitRedelivery(ctx context.Context) error {
	info, err := s.consumer.Info(ctx)
	if err != nil || info.NumAckPending == 0 {
		return err
	}
	timer := time.NewTimer(s.b.cfg.RedeliverAfter + 250*time.Millisecond)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// each calls f for the messages, and flushes. It returns the first error.
func (s *source) each(ctx context.Context, deliveries []driver.Delivery, f func(jetstream.Msg) error) error {
	var first error
	for _, d := range deliveries {
		if err := f(d.Token.(jetstream.Msg)); err != nil && first == nil { //nolint:forcetypeassert // delivery made it
			first = err
		}
	}
	if err := s.b.nc.FlushWithContext(ctx); first == nil {
		first = err
	}
	return first
}

// Settle acks messages. It returns when the server's process has the acks.
func (s *source) Settle(ctx context.Context, deliveries []driver.Delivery) error {
	return s.each(ctx, deliveries, jetstream.Msg.Ack)
}

// Extend begins the time of messages anew.
func (s *source) Extend(ctx context.Context, deliveries []driver.Delivery) error {
	return s.each(ctx, deliveries, jetstream.Msg.InProgress)
}

// Return gives messages to other members at once.
func (s *source) Return(ctx context.Context, deliveries []driver.Delivery) error {
	return s.each(ctx, deliveries, jetstream.Msg.Nak)
}

// Close ends the consumer of a subscription without a group, and gives back what came too late.
func (s *source) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), requestTimeout)
	defer cancel()
	if s.group == "" {
		return s.b.js.DeleteConsumer(ctx, s.stream.name, s.consumer.CachedInfo().Name)
	}
	for s.pending != nil {
		select {
		case msg, more := <-s.pending.Messages():
			if !more {
				return nil
			}
			if err := msg.Nak(); err != nil {
				return err
			}
		default:
			return nil
		}
	}
	return nil
}
