package tracing

import (
	"context"
	"errors"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	semconv "go.opentelemetry.io/otel/semconv/v1.37.0"
)

// instruments are the metrics of the conventions.
type instruments struct {
	operation metric.Float64Histogram
	process   metric.Float64Histogram
	sent      metric.Int64Counter
	consumed  metric.Int64Counter
}

// buckets are those that the conventions advise, in seconds.
var buckets = metric.WithExplicitBucketBoundaries(.005, .01, .025, .05, .075, .1, .25, .5, .75, 1, 2.5, 5, 7.5, 10)

func newInstruments(m metric.Meter) (i instruments, err error) {
	var errs [4]error
	i.operation, errs[0] = m.Float64Histogram("messaging.client.operation.duration", buckets, metric.WithUnit("s"),
		metric.WithDescription("Duration of messaging operation initiated by a producer or consumer client."))
	i.process, errs[1] = m.Float64Histogram("messaging.process.duration", buckets, metric.WithUnit("s"),
		metric.WithDescription("Duration of processing operation."))
	i.sent, errs[2] = m.Int64Counter("messaging.client.sent.messages", metric.WithUnit("{message}"),
		metric.WithDescription("Number of messages producer attempted to send to the broker."))
	i.consumed, errs[3] = m.Int64Counter("messaging.client.consumed.messages", metric.WithUnit("{message}"),
		metric.WithDescription("Number of messages that were delivered to the application."))
	return i, errors.Join(errs[:]...)
}

// labels are the attributes of a metric: fewer than a span's, and bounded.
func (t *Tracing) labels(name string, kind attribute.KeyValue, d destination, group string, err error) metric.MeasurementOption {
	all := []attribute.KeyValue{
		semconv.MessagingSystemKey.String(t.system), semconv.MessagingOperationName(name), kind,
		semconv.MessagingDestinationName(t.bounded.value(d.name)),
	}
	if group != "" {
		all = append(all, semconv.MessagingConsumerGroupName(t.bounded.value(group)))
	}
	if err != nil {
		all = append(all, errorType(err))
	}
	return metric.WithAttributes(all...)
}

// measure records an operation.
func measure(ctx context.Context, h metric.Float64Histogram, began time.Time, labels metric.MeasurementOption) {
	h.Record(ctx, time.Since(began).Seconds(), labels)
}
