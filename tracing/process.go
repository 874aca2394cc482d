package tracing

import (
	"context"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	semconv "go.opentelemetry.io/otel/semconv/v1.37.0"
	"go.opentelemetry.io/otel/trace"
)

// Middleware makes a span for each call of a handler, as a child of the span that has sent the message, and puts it
// into the message's context, where it stays. Messages that the handler returns have it in theirs, so that what the
// Router publishes, through a Publisher of this package, continues the trace.
func (t *Tracing) Middleware(h message.HandlerFunc) message.HandlerFunc {
	return func(m *message.Message) (produced []*message.Message, err error) {
		before := m.Context()
		d, began := destinationOf(message.SubscribeTopicFromCtx(before)), time.Now()
		attributes := append(t.common("process", semconv.MessagingOperationTypeProcess, d), ofDelivery(before, m)...)
		ctx, span := t.tracer.Start(t.propagator.Extract(before, carrier(m)), spanName("process", d), trace.WithSpanKind(trace.SpanKindConsumer),
			trace.WithAttributes(withGroup(attributes, groupOf(before))...))
		m.SetContext(ctx)
		defer func() {
			measure(ctx, t.metrics.process, began, t.labels("process", semconv.MessagingOperationTypeProcess, d, groupOf(before), err))
			fail(span, err)
			span.End()
		}()
		produced, err = h(m)
		for _, p := range produced {
			if p != nil && !trace.SpanContextFromContext(p.Context()).IsValid() {
				p.SetContext(trace.ContextWithSpan(p.Context(), span))
			}
		}
		return produced, err
	}
}

// Process makes a span for work on several messages of a topic at once, which links to the spans that have sent them,
// and calls f with its context, on the calling goroutine. It returns f's error, which the span has too.
func (t *Tracing) Process(ctx context.Context, topic string, messages []*message.Message, f func(context.Context) error) (err error) {
	d, began := destinationOf(topic), time.Now()
	links := make([]trace.Link, 0, len(messages))
	group := ""
	for _, m := range messages {
		group = groupOf(m.Context())
		if sent := t.parentOf(m); trace.SpanContextFromContext(sent).IsValid() {
			links = append(links, trace.LinkFromContext(sent))
		}
	}
	attributes := append(t.common("process", semconv.MessagingOperationTypeProcess, d), semconv.MessagingBatchMessageCount(len(messages)))
	ctx, span := t.tracer.Start(ctx, spanName("process", d), trace.WithSpanKind(trace.SpanKindConsumer), trace.WithLinks(links...),
		trace.WithAttributes(withGroup(attributes, group)...))
	defer func() {
		measure(ctx, t.metrics.process, began, t.labels("process", semconv.MessagingOperationTypeProcess, d, group, err))
		fail(span, err)
		span.End()
	}()
	return f(ctx)
}
