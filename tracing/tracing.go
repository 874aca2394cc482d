// Package tracing shows what a Publisher and a Subscriber do to OpenTelemetry, by its conventions for messaging: spans
// of sending, processing and settling, and metrics of the same. The context travels in the metadata of messages, in
// W3C's form.
//
//	t, err := tracing.New(tracing.Options{})
//	publisher := t.Publisher(pub)         // spans of sending; puts the context into messages
//	subscriber := t.Subscriber(sub, "")   // takes the context out of messages; spans of settling
//	router.AddMiddleware(t.Middleware)    // spans of processing; what the handler publishes continues the trace
//
// Publisher and Subscriber work with any Pub/Sub of Watermill. In ManagerConfig.Hooks a Tracing shows lookups of routes
// that fail.
package tracing

import (
	"cmp"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

const (
	scope  = "github.com/buffstreams/watermill-buffstreams/tracing"
	system = "buffstreams"
)

// DefaultMaxDestinations is how many names of destinations have metrics of their own.
const DefaultMaxDestinations = 200

// Options configures a Tracing. The zero value takes OpenTelemetry's global providers, and W3C's trace context and
// baggage.
type Options struct {
	TracerProvider trace.TracerProvider
	MeterProvider  metric.MeterProvider
	Propagator     propagation.TextMapPropagator
	// System is the value of messaging.system; empty means "buffstreams".
	System string
	// MaxDestinations bounds the destinations, and the groups, that have metrics of their own; those beyond share the
	// name "_OTHER". 0 means DefaultMaxDestinations. Spans always have the real name.
	MaxDestinations int
}

// Tracing makes spans and metrics. It is safe for concurrent use.
type Tracing struct {
	tracer     trace.Tracer
	propagator propagation.TextMapPropagator
	system     string
	metrics    instruments
	bounded    *bounded
	sends      sends
}

// New returns a Tracing. The error is that of a MeterProvider that refuses an instrument.
func New(o Options) (*Tracing, error) {
	if o.TracerProvider == nil {
		o.TracerProvider = otel.GetTracerProvider()
	}
	if o.MeterProvider == nil {
		o.MeterProvider = otel.GetMeterProvider()
	}
	if o.Propagator == nil {
		o.Propagator = propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{})
	}
	metrics, err := newInstruments(o.MeterProvider.Meter(scope))
	return &Tracing{
		tracer: o.TracerProvider.Tracer(scope), propagator: o.Propagator, system: cmp.Or(o.System, system),
		metrics: metrics, bounded: newBounded(cmp.Or(o.MaxDestinations, DefaultMaxDestinations)),
		sends: sends{by: map[string]map[*send]struct{}{}},
	}, err
}
