package nats

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/buffstreams/watermill-buffstreams/engines/driver"
)

// source is a subscription. What is below group belongs to the goroutine of Fetch, and after its end to that of Close.
type source struct {
	b     *broker
	topic string
	group string

	consumer jetstream.Consumer
	stream   *stream
	reached  uint64 // the last place in the stream that was delivered

	pending jetstream.MessageBatch // of a request that is not through
	// sorting tells that messages which the server has given already must come first: those that a member before had in
	// hand, or that were lost with a connection. first is what of them is not returned yet.
	sorting bool
	first   []driver.Delivery
	// last is the consumer's number of the last delivery: the numbers have no gaps unless one was lost.
	last uint64

	mu  sync.Mutex
	out map[uint64]struct{} // by place in the stream: what was returned and is not settled, where sorting can be; guarded by mu
}

// Consume begins a subscription.
func (b *broker) Consume(ctx context.Context, topic, group string) (driver.Source, error) {
	ctx, cancel := context.WithTimeout(ctx, b.cfg.PublishTimeout)
	defer cancel()
	var s *stream
	var consumer jetstream.Consumer
	err := retry(ctx, func() (err error) {
		if s, err = b.stream(ctx, topic); err == nil {
			consumer, err = b.consumer(ctx, s, group, 0)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	src := &source{b: b, topic: topic, consumer: consumer, stream: s, group: group}
	if group != "" && b.cfg.Members == 1 {
		src.sorting, src.out = true, map[uint64]struct{}{}
	}
	return src, nil
}

// fetchWait is how long one request for messages stands.
const fetchWait = 5 * time.Second

// Fetch reads what a standing request has brought, and makes one where there is none.
func (s *source) Fetch(ctx context.Context, maximum int) ([]driver.Delivery, error) {
	for ctx.Err() == nil {
		if s.sorting {
			if err := s.sort(ctx); err != nil {
				return nil, err
			}
		}
		if n := min(len(s.first), maximum); n > 0 {
			deliveries := s.first[:n:n]
			s.first = s.first[n:]
			return s.handOut(deliveries), nil
		}
		if s.pending == nil {
			batch, err := s.consumer.Fetch(maximum, jetstream.FetchMaxWait(fetchWait), jetstream.FetchHeartbeat(fetchWait/3))
			if err != nil {
				return nil, s.again(ctx, err)
			}
			s.pending = batch
		}
		select {
		case msg, more := <-s.pending.Messages():
			if !more {
				err := s.pending.Error()
				s.pending = nil
				if err != nil && !errors.Is(err, nats.ErrTimeout) {
					return nil, s.again(ctx, err)
				}
				continue
			}
			if deliveries := s.take(msg, maximum); !s.sorting {
				return s.handOut(deliveries), nil
			} else {
				s.first = deliveries // they wait for what is missing before them
			}
		case <-ctx.Done():
		}
	}
	return nil, ctx.Err()
}

// again makes the consumer again where it is gone, and the stream, if create allows that. It returns err, and why that
// failed.
func (s *source) again(ctx context.Context, err error) error {
	asking, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	_, asked := s.consumer.Info(asking)
	if !errors.Is(asked, jetstream.ErrConsumerNotFound) && !errors.Is(asked, jetstream.ErrStreamNotFound) {
		return err
	}
	if failed := s.b.streamAgain(ctx, s.topic); failed != nil {
		return errors.Join(err, failed)
	}
	stream, failed := s.b.stream(ctx, s.topic)
	if failed != nil {
		return errors.Join(err, failed)
	}
	if stream.id != s.stream.id {
		s.reached = 0 // another one
	}
	consumer, failed := s.b.consumer(ctx, stream, s.group, s.reached+min(s.reached, 1))
	if failed == nil {
		s.consumer, s.stream, s.last = consumer, stream, 0
	}
	return errors.Join(err, failed)
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
		gap := s.last != 0 && meta.Sequence.Consumer != s.last+1
		s.last, s.reached = meta.Sequence.Consumer, max(s.reached, meta.Sequence.Stream)
		s.sorting = s.sorting || gap && s.out != nil
	}
	return d
}

// answer publishes what the server is told about messages, and flushes. It does not use the client's own methods, which
// tell it once only, even if the connection was lost then.
func (s *source) answer(ctx context.Context, deliveries []driver.Delivery, what string) error {
	for _, d := range deliveries {
		if err := s.b.nc.Publish(d.Token.(jetstream.Msg).Reply(), []byte(what)); err != nil { //nolint:forcetypeassert // delivery made it
			return err
		}
	}
	return s.b.nc.FlushWithContext(ctx)
}

// settled forgets messages that the server was told about.
func (s *source) settled(deliveries []driver.Delivery) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range deliveries {
		delete(s.out, place(d))
	}
}

// Settle acks messages. It returns when the server's process has the acks.
func (s *source) Settle(ctx context.Context, deliveries []driver.Delivery) error {
	err := s.answer(ctx, deliveries, "+ACK")
	if err == nil && s.out != nil {
		s.settled(deliveries)
	}
	return err
}

// Extend begins the time of messages anew.
func (s *source) Extend(ctx context.Context, deliveries []driver.Delivery) error {
	return s.answer(ctx, deliveries, "+WPI")
}

// Return gives messages to other members at once.
func (s *source) Return(ctx context.Context, deliveries []driver.Delivery) error {
	return s.answer(ctx, deliveries, "-NAK")
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
