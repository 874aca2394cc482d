package tracing

import (
	"context"
	"sync"

	"github.com/ThreeDotsLabs/watermill/message"
	"go.opentelemetry.io/otel/attribute"
	semconv "go.opentelemetry.io/otel/semconv/v1.37.0"
	"go.opentelemetry.io/otel/trace"
)

// Subscriber returns a subscriber whose messages have in their context the span context of their metadata, and that
// makes a span when a message of a sampled trace is acked or nacked. group is the name of its consumer group, or empty.
func (t *Tracing) Subscriber(s message.Subscriber, group string) message.Subscriber {
	return &subscriber{tracing: t, Subscriber: s, group: group}
}

// SubscriberDecorator is Subscriber for a Router.
func (t *Tracing) SubscriberDecorator(s message.Subscriber) (message.Subscriber, error) {
	return t.Subscriber(s, ""), nil
}

type subscriber struct {
	tracing *Tracing
	message.Subscriber
	group string
	wg    sync.WaitGroup // the goroutines of Subscribe and of messages
}

// Subscribe implements message.Subscriber.
func (s *subscriber) Subscribe(ctx context.Context, topic string) (<-chan *message.Message, error) {
	in, err := s.Subscriber.Subscribe(ctx, topic)
	if err != nil {
		return nil, err
	}
	out := make(chan *message.Message)
	d := destinationOf(topic)
	s.wg.Go(func() { // ends when the wrapped channel is closed; Close waits for it
		defer close(out)
		for m := range in {
			s.received(m, d)
			select {
			case out <- m:
			case <-m.Context().Done(): // the subscription has ended, and no handler has come for the message
				m.Nack()
			}
		}
	})
	return out, nil
}

// SubscribeInitialize implements message.SubscribeInitializer.
func (s *subscriber) SubscribeInitialize(topic string) error {
	if i, ok := s.Subscriber.(message.SubscribeInitializer); ok {
		return i.SubscribeInitialize(topic)
	}
	return nil
}

// Close implements message.Subscriber.
func (s *subscriber) Close() error {
	err := s.Subscriber.Close()
	s.wg.Wait()
	return err
}

// received puts the span context of a message's metadata into its context.
func (s *subscriber) received(m *message.Message, d destination) {
	t := s.tracing
	own := m.Context()
	ctx := t.propagator.Extract(own, carrier(m))
	m.SetContext(context.WithValue(ctx, groupKey{}, s.group))
	t.metrics.consumed.Add(ctx, 1, t.labels("receive", semconv.MessagingOperationTypeReceive, d, s.group, nil))
	if trace.SpanContextFromContext(ctx).IsSampled() {
		attributes := withGroup(ofDelivery(ctx, m), s.group)                  // from now on the message is the handler's
		s.wg.Go(func() { s.awaitSettled(ctx, own.Done(), m, d, attributes) }) // ends with the delivery; Close waits for it
	}
}

// awaitSettled makes a span when a message is acked or nacked.
func (s *subscriber) awaitSettled(
	ctx context.Context, ended <-chan struct{}, m *message.Message, d destination, attributes []attribute.KeyValue,
) {
	name := "ack"
	select {
	case <-m.Acked():
	case <-m.Nacked():
		name = "nack"
	case <-ended: // the context ends with the ack too
		select {
		case <-m.Acked():
		case <-m.Nacked():
			name = "nack"
		default:
			return // the subscription has ended
		}
	}
	t := s.tracing
	_, span := t.tracer.Start(ctx, spanName(name, d), trace.WithSpanKind(trace.SpanKindClient),
		trace.WithAttributes(t.common(name, semconv.MessagingOperationTypeSettle, d)...), trace.WithAttributes(attributes...))
	span.End()
}

type groupKey struct{}

// groupOf is the consumer group of the Subscriber that a message came through.
func groupOf(ctx context.Context) string {
	group, _ := ctx.Value(groupKey{}).(string)
	return group
}

func withGroup(attributes []attribute.KeyValue, group string) []attribute.KeyValue {
	if group == "" {
		return attributes
	}
	return append(attributes, semconv.MessagingConsumerGroupName(group))
}
