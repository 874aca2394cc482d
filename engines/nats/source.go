package nats

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/buffstreams/watermill-buffstreams/engines/driver"
)

// source is a subscription. What is below group belongs to the goroutine of Fetch.
type source struct {
	b        *broker
	consumer jetstream.Consumer
	stream   *stream
	group    string

	pending jetstream.MessageBatch // of a request that is not through
	// inOrder tells that what the member before had in hand must come first; first is what of it is not returned yet.
	inOrder bool
	first   []driver.Delivery
}

// Consume begins a subscription.
func (b *broker) Consume(ctx context.Context, topic, group string) (driver.Source, error) {
	ctx, cancel := context.WithTimeout(ctx, b.cfg.PublishTimeout)
	defer cancel()
	var s *stream
	var consumer jetstream.Consumer
	err := retry(ctx, func() (err error) {
		if s, err = b.stream(ctx, topic); err == nil {
			consumer, err = b.consumer(ctx, s, group)
		}
		return err
	})
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
	if n := min(len(s.first), maximum); n > 0 {
		deliveries := s.first[:n:n]
		s.first = s.first[n:]
		return deliveries, nil
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

// awaitRedelivery waits until the server gives again what an earlier member had in hand when it died, and takes it: the server
// has lost its order, and would give new messages with it.
func (s *source) awaitRedelivery(ctx context.Context) error {
	info, err := s.consumer.Info(ctx)
	if err != nil || info.NumAckPending == 0 {
		return err
	}
	timer := time.NewTimer(s.b.cfg.RedeliverAfter + 250*time.Millisecond)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return ctx.Err()
	}
	if info, err = s.consumer.Info(ctx); err != nil {
		return err
	}
	found := map[uint64]driver.Delivery{} // by place in the stream
	for len(found) < info.NumAckPending {
		batch, err := s.consumer.Fetch(info.NumAckPending-len(found), jetstream.FetchMaxWait(fetchWait))
		if err != nil {
			return err
		}
		for msg := range batch.Messages() {
			if meta, err := msg.Metadata(); err == nil {
				found[meta.Sequence.Stream] = s.delivery(msg)
			}
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if info, err = s.consumer.Info(ctx); err != nil { // acks that were on their way have come since
			return err
		}
	}
	for _, at := range slices.Sorted(maps.Keys(found)) {
		s.first = append(s.first, found[at])
	}
	return nil
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
