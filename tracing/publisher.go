package tracing

import (
	"context"
	"slices"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	semconv "go.opentelemetry.io/otel/semconv/v1.37.0"
	"go.opentelemetry.io/otel/trace"
)

// Publisher returns a publisher that makes a span for each Publish, as a child of the span in the messages' contexts,
// and puts its context into their metadata. A call with several messages has a span for the creation of each, which the
// span of the call links to: receivers continue that of their message. Messages without a span in their context
// continue the one in their metadata, so that a forwarder does not break the trace.
func (t *Tracing) Publisher(p message.Publisher) message.Publisher { return &publisher{t, p} }

// PublisherDecorator is Publisher for a Router.
func (t *Tracing) PublisherDecorator(p message.Publisher) (message.Publisher, error) {
	return t.Publisher(p), nil
}

type publisher struct {
	tracing *Tracing
	message.Publisher
}

// Publish implements message.Publisher.
func (p *publisher) Publish(topic string, messages ...*message.Message) error {
	if len(messages) == 0 {
		return p.Publisher.Publish(topic)
	}
	t, d, began := p.tracing, destinationOf(topic), time.Now()
	ctx, span := t.startSend(d, messages)
	defer span.End()
	call := t.sends.begin(topic, d, span)
	err := p.Publisher.Publish(topic, messages...)
	t.sends.end(topic, call)
	labels := t.labels("send", semconv.MessagingOperationTypeSend, d, "", err)
	t.metrics.sent.Add(ctx, int64(len(messages)), labels)
	measure(ctx, t.metrics.operation, began, labels)
	fail(span, err)
	return err
}

// startSend begins the span of a Publish call.
func (t *Tracing) startSend(d destination, messages []*message.Message) (context.Context, trace.Span) {
	attributes := t.common("send", semconv.MessagingOperationTypeSend, d)
	if first := messages[0]; len(messages) == 1 && first != nil {
		ctx, span := t.tracer.Start(t.parentOf(first), spanName("send", d), trace.WithSpanKind(trace.SpanKindProducer),
			trace.WithAttributes(append(attributes, ofMessage(first)...)...))
		t.inject(ctx, first)
		return ctx, span
	}
	messages = slices.DeleteFunc(slices.Clone(messages), func(m *message.Message) bool { return m == nil }) // Publish refuses those
	parent := context.Background()
	if len(messages) > 0 {
		parent = t.parentOf(messages[0])
	}
	links := make([]trace.Link, 0, len(messages))
	for _, m := range messages {
		links = append(links, trace.Link{SpanContext: t.create(m, d)})
	}
	attributes = append(attributes, semconv.MessagingBatchMessageCount(len(messages)))
	return t.tracer.Start(parent, spanName("send", d), trace.WithSpanKind(trace.SpanKindClient), trace.WithLinks(links...),
		trace.WithAttributes(attributes...))
}

// create makes the span of one message of several, and puts its context into the message.
func (t *Tracing) create(m *message.Message, d destination) trace.SpanContext {
	ctx, span := t.tracer.Start(t.parentOf(m), spanName("create", d), trace.WithSpanKind(trace.SpanKindProducer),
		trace.WithAttributes(append(t.common("create", semconv.MessagingOperationTypeCreate, d), ofMessage(m)...)...))
	defer span.End()
	t.inject(ctx, m)
	return span.SpanContext()
}

// parentOf is the context that a message belongs to: its own, if there is a span in it, otherwise the one in its
// metadata.
func (t *Tracing) parentOf(m *message.Message) context.Context {
	ctx := m.Context()
	if trace.SpanContextFromContext(ctx).IsValid() {
		return ctx
	}
	return t.propagator.Extract(ctx, carrier(m))
}

// inject puts a context into the metadata of a message.
func (t *Tracing) inject(ctx context.Context, m *message.Message) {
	if m.Metadata == nil {
		m.Metadata = message.Metadata{}
	}
	t.propagator.Inject(ctx, carrier(m))
}

// carrier is a message's metadata as a propagator wants it.
func carrier(m *message.Message) propagation.MapCarrier { return propagation.MapCarrier(m.Metadata) }

// fail notes why what a span is about has failed.
func fail(span trace.Span, err error) {
	if err == nil {
		return
	}
	span.RecordError(err)
	span.SetStatus(codes.Error, err.Error())
	span.SetAttributes(errorType(err))
}
