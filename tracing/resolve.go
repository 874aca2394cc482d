package tracing

import (
	"context"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	semconv "go.opentelemetry.io/otel/semconv/v1.37.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/buffstreams/watermill-buffstreams/hooks"
)

// OnResolved implements hooks.ResolvedHook, for ManagerConfig.Hooks. A lookup of a route that fails is a span of its
// own, as messages may go on to the addresses that were found last. Calls of Publish to the topic that are under way
// have the error as an event of their span, once, and are linked to. Lookups that succeed leave no span.
func (t *Tracing) OnResolved(e hooks.Resolved) {
	if e.Err == nil {
		return
	}
	links := t.sends.note(e.Topic, e.Err)
	ended := time.Now()
	attributes := []attribute.KeyValue{
		semconv.MessagingSystemKey.String(t.system), semconv.MessagingOperationName("resolve"), semconv.MessagingDestinationName(e.Topic),
	}
	_, span := t.tracer.Start(context.Background(), spanName("resolve", destination{name: e.Topic}), trace.WithNewRoot(),
		trace.WithSpanKind(trace.SpanKindClient), trace.WithTimestamp(ended.Add(-e.Took)), trace.WithLinks(links...), trace.WithAttributes(attributes...))
	fail(span, e.Err)
	span.End(trace.WithTimestamp(ended))
}

// sends are the calls of Publish under way to topics that a Resolver knows, by topic.
type sends struct {
	mu sync.Mutex // guards by, and the sends in it
	by map[string]map[*send]struct{}
}

// send is one of them.
type send struct {
	span  trace.Span
	noted bool // the span has an event of a lookup
}

// maxLinks is the most sends that a lookup links to.
const maxLinks = 32

// begin adds a call. The result is for end; nil: nothing is to be noted of it.
func (s *sends) begin(topic string, d destination, span trace.Span) *send {
	if d.server != nil || !span.IsRecording() { // its topic names the address
		return nil
	}
	one := &send{span: span}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.by[topic] == nil {
		s.by[topic] = map[*send]struct{}{}
	}
	s.by[topic][one] = struct{}{}
	return one
}

func (s *sends) end(topic string, one *send) {
	if one == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if delete(s.by[topic], one); len(s.by[topic]) == 0 {
		delete(s.by, topic)
	}
}

// note adds the error of a lookup to the spans of the topic's calls, and returns links to the first that it meets.
func (s *sends) note(topic string, err error) (links []trace.Link) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for one := range s.by[topic] {
		if !one.noted {
			one.noted = true
			one.span.RecordError(err)
		}
		if len(links) < maxLinks {
			links = append(links, trace.Link{SpanContext: one.span.SpanContext()})
		}
	}
	return links
}
