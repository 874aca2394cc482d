package tracing

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/message/router/middleware"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
)

// traced is a Pub/Sub whose spans and metrics are kept.
type traced struct {
	t        *testing.T
	tracing  *Tracing
	tracer   trace.Tracer
	recorder *tracetest.SpanRecorder
	reader   *sdkmetric.ManualReader
	pub      message.Publisher
	sub      message.Subscriber
}

func newTraced(t *testing.T, cfg buffstreams.SubscriberConfig) *traced {
	t.Helper()
	leaks := goleak.IgnoreCurrent()
	t.Cleanup(func() {
		err := goleak.Find(leaks)
		for end := time.Now().Add(30 * time.Second); err != nil && time.Now().Before(end); { // Find waits for less than a second
			err = goleak.Find(leaks)
		}
		require.NoError(t, err)
	})
	x := &traced{t: t, recorder: tracetest.NewSpanRecorder(), reader: sdkmetric.NewManualReader()}
	provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(x.recorder))
	var err error
	x.tracing, err = New(Options{
		TracerProvider: provider, MeterProvider: sdkmetric.NewMeterProvider(sdkmetric.WithReader(x.reader)), MaxDestinations: 3,
	})
	require.NoError(t, err)
	x.tracer = provider.Tracer("test")
	cfg.ConsumerGroup, cfg.NackResendSleep, cfg.CloseTimeout = "billing", buffstreams.NoSleep, time.Second
	ps, err := buffstreams.NewPubSub(buffstreams.PubSubConfig{Subscriber: cfg}, nil)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, x.sub.Close()) })
	x.pub, x.sub = x.tracing.Publisher(ps), x.tracing.Subscriber(ps, "billing")
	return x
}

func newMessage(ctx context.Context, text string) *message.Message {
	m := message.NewMessage(watermill.NewUUID(), []byte(text))
	m.SetContext(ctx)
	return m
}

// span waits for the n-th span of a name to end.
func (x *traced) span(name string, n int) sdktrace.ReadOnlySpan {
	x.t.Helper()
	var found []sdktrace.ReadOnlySpan
	require.Eventually(x.t, func() bool {
		found = nil
		for _, s := range x.recorder.Ended() {
			if s.Name() == name {
				found = append(found, s)
			}
		}
		return len(found) >= n
	}, 10*time.Second, time.Millisecond, "%d spans %q of %v", n, name, x.recorder.Ended())
	return found[n-1]
}

func (x *traced) isChild(child, parent sdktrace.ReadOnlySpan) {
	x.t.Helper()
	require.Equal(x.t, parent.SpanContext().TraceID(), child.SpanContext().TraceID())
	require.Equal(x.t, parent.SpanContext().SpanID(), child.Parent().SpanID(), "%s under %s", child.Name(), parent.Name())
}

func get(s sdktrace.ReadOnlySpan, key string) string {
	i := slices.IndexFunc(s.Attributes(), func(a attribute.KeyValue) bool { return string(a.Key) == key })
	if i < 0 {
		return ""
	}
	return fmt.Sprint(s.Attributes()[i].Value.AsInterface())
}

// A message that is sent, processed behind a Router, answered with another one, and acked, is one trace.
func TestTracing_OneTraceThroughTheRouter(t *testing.T) {
	x := newTraced(t, buffstreams.SubscriberConfig{})
	router, err := message.NewRouter(message.RouterConfig{CloseTimeout: time.Second}, watermill.NopLogger{})
	require.NoError(t, err)
	router.AddMiddleware(x.tracing.Middleware, middleware.CorrelationID)
	failed := false
	router.AddHandler("h", "orders", x.sub, "invoices", x.pub, func(m *message.Message) ([]*message.Message, error) {
		require.True(t, trace.SpanContextFromContext(m.Context()).IsValid())
		if !failed {
			failed = true
			return nil, errors.New("busy")
		}
		return []*message.Message{message.NewMessage(watermill.NewUUID(), []byte("invoice"))}, nil
	})
	invoices, err := x.sub.Subscribe(context.Background(), "invoices")
	require.NoError(t, err)
	go func() { _ = router.Run(context.Background()) }() // ends with router.Close
	<-router.Running()

	ctx, root := x.tracer.Start(context.Background(), "request")
	order := newMessage(ctx, "order")
	require.NoError(t, x.pub.Publish("orders", order))
	root.End()
	invoice := <-invoices
	invoice.Ack()

	send := x.span("send orders", 1)
	x.isChild(send, x.span("request", 1))
	require.Equal(t, trace.SpanKindProducer, send.SpanKind())
	require.Equal(t, "buffstreams", get(send, "messaging.system"))
	require.Equal(t, "send", get(send, "messaging.operation.type"))
	require.Equal(t, "orders", get(send, "messaging.destination.name"))
	require.Equal(t, order.UUID, get(send, "messaging.message.id"))
	require.Equal(t, "5", get(send, "messaging.message.body.size"))

	first, second := x.span("process orders", 1), x.span("process orders", 2)
	x.isChild(first, send)
	x.isChild(second, send)
	require.Equal(t, trace.SpanKindConsumer, first.SpanKind())
	require.Equal(t, codes.Error, first.Status().Code)
	require.NotEmpty(t, get(first, "error.type"))
	require.Equal(t, "billing", get(first, "messaging.consumer.group.name"))
	require.Equal(t, "2", get(second, "messaging.buffstreams.delivery.attempt"))

	x.isChild(x.span("nack orders", 1), send)
	settle := x.span("ack orders", 1)
	x.isChild(settle, send)
	require.Equal(t, "settle", get(settle, "messaging.operation.type"))
	require.Equal(t, trace.SpanKindClient, settle.SpanKind())

	x.isChild(x.span("send invoices", 1), second)
	x.isChild(x.span("ack invoices", 1), x.span("send invoices", 1))
	require.NotEmpty(t, invoice.Metadata.Get("traceparent"))
	require.NoError(t, router.Close())
}

// A call with several messages has a span for each, which it links to; so does work on several.
func TestTracing_BatchesHaveLinks(t *testing.T) {
	x := newTraced(t, buffstreams.SubscriberConfig{MaxInFlight: 10})
	out, err := x.sub.Subscribe(context.Background(), "orders")
	require.NoError(t, err)
	ctx, root := x.tracer.Start(context.Background(), "request")
	require.NoError(t, x.pub.Publish("orders", newMessage(ctx, "1"), newMessage(ctx, "2"), newMessage(ctx, "3")))
	root.End()
	var batch []*message.Message
	for range 3 {
		batch = append(batch, <-out)
	}
	require.NoError(t, x.tracing.Process(context.Background(), "orders", batch, func(ctx context.Context) error {
		require.True(t, trace.SpanContextFromContext(ctx).IsValid())
		return nil
	}))
	send, process := x.span("send orders", 1), x.span("process orders", 1)
	require.Equal(t, trace.SpanKindClient, send.SpanKind())
	require.Equal(t, "3", get(send, "messaging.batch.message_count"))
	require.Equal(t, "3", get(process, "messaging.batch.message_count"))
	require.Len(t, send.Links(), 3)
	require.Len(t, process.Links(), 3)
	for i, m := range batch {
		m.Ack()
		create := x.span("create orders", i+1)
		x.isChild(create, x.span("request", 1))
		require.Equal(t, create.SpanContext().SpanID(), send.Links()[i].SpanContext.SpanID())
		require.Equal(t, create.SpanContext().SpanID(), process.Links()[i].SpanContext.SpanID())
	}
}

// What forwards messages without a span of its own, such as Watermill's forwarder, breaks no trace; a nil message is the
// publisher's to refuse.
func TestTracing_ContinuesWhatIsInTheMetadata(t *testing.T) {
	x := newTraced(t, buffstreams.SubscriberConfig{})
	out, err := x.sub.Subscribe(context.Background(), "orders")
	require.NoError(t, err)
	ctx, root := x.tracer.Start(context.Background(), "request")
	m := newMessage(context.Background(), "order")
	x.tracing.inject(ctx, m)
	root.End()
	require.NoError(t, x.pub.Publish("orders", m))
	(<-out).Ack()
	x.isChild(x.span("send orders", 1), x.span("request", 1))
	require.Error(t, x.pub.Publish("orders", nil, newMessage(context.Background(), "x")))
	require.Error(t, x.pub.Publish("orders", nil))
}

// The metrics are those of the conventions, and no destination beyond the bound has series of its own.
func TestTracing_MetricsAreBounded(t *testing.T) {
	x := newTraced(t, buffstreams.SubscriberConfig{})
	for i := range 10 {
		topic := fmt.Sprintf("topic%d", i)
		out, err := x.sub.Subscribe(context.Background(), topic)
		require.NoError(t, err)
		require.NoError(t, x.pub.Publish(topic, newMessage(context.Background(), "order")))
		m := <-out
		_, err = x.tracing.Middleware(func(*message.Message) ([]*message.Message, error) { return nil, nil })(m)
		require.NoError(t, err)
		m.Ack()
	}
	var all metricdata.ResourceMetrics
	require.NoError(t, x.reader.Collect(context.Background(), &all))
	points := map[string]int{}
	for _, m := range all.ScopeMetrics[0].Metrics {
		switch data := m.Data.(type) {
		case metricdata.Sum[int64]:
			var total int64
			for _, p := range data.DataPoints {
				total += p.Value
			}
			require.EqualValues(t, 10, total, m.Name)
			points[m.Name] = len(data.DataPoints)
		case metricdata.Histogram[float64]:
			points[m.Name] = len(data.DataPoints)
			require.Equal(t, "s", m.Unit)
		}
	}
	require.Len(t, points, 4)
	for _, name := range []string{"messaging.client.operation.duration", "messaging.process.duration",
		"messaging.client.sent.messages", "messaging.client.consumed.messages"} {
		require.LessOrEqual(t, points[name], 4, name)
		require.Positive(t, points[name], name)
	}
}

// Topics that name their address say it in attributes of their own.
func TestTracing_Destinations(t *testing.T) {
	for topic, want := range map[string]string{
		"orders": "orders []", "127.0.0.1:5031/orders": "orders [server.address=127.0.0.1 server.port=5031]",
		"tls://example.com:5031/a/b": "a/b [server.address=example.com server.port=5031]", ":5031": " [server.address= server.port=5031]",
		"unix:///s.sock#orders": "orders [server.address=/s.sock]", "tenant:x": "tenant:x []",
	} {
		d := destinationOf(topic)
		var server []string
		for _, a := range d.server {
			server = append(server, fmt.Sprintf("%s=%v", a.Key, a.Value.AsInterface()))
		}
		require.Equal(t, want, fmt.Sprintf("%s %v", d.name, server), topic)
	}
}
