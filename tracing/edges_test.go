package tracing

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/hooks"
)

// pipe is a Pub/Sub of one topic without anything of its own: what is published is delivered if it has room.
type pipe struct {
	out   chan *message.Message
	err   error         // of Publish
	after time.Duration // from Close to the end of the subscription
}

func (p *pipe) Publish(_ string, messages ...*message.Message) error {
	for _, m := range messages {
		if p.err == nil {
			p.out <- m
		}
	}
	return p.err
}

func (p *pipe) Subscribe(context.Context, string) (<-chan *message.Message, error) {
	return p.out, p.err
}

func (p *pipe) Close() error {
	time.AfterFunc(p.after, func() { close(p.out) })
	return nil
}

// newPiped is newTraced around a pipe.
func newPiped(t *testing.T, options ...sdktrace.TracerProviderOption) (*traced, *pipe) {
	t.Helper()
	x := &traced{t: t, recorder: tracetest.NewSpanRecorder(), reader: sdkmetric.NewManualReader()}
	provider := sdktrace.NewTracerProvider(append(options, sdktrace.WithSpanProcessor(x.recorder))...)
	var err error
	x.tracing, err = New(Options{
		TracerProvider: provider, MeterProvider: sdkmetric.NewMeterProvider(sdkmetric.WithReader(x.reader)), System: "pipe",
	})
	require.NoError(t, err)
	p := &pipe{out: make(chan *message.Message, 100)}
	x.tracer, x.pub, x.sub = provider.Tracer("test"), x.tracing.Publisher(p), x.tracing.Subscriber(p, "g")
	return x, p
}

// points are the metrics, a line for each series: its labels, and the sum or the number of samples.
func (x *traced) points() (lines []string) {
	var all metricdata.ResourceMetrics
	require.NoError(x.t, x.reader.Collect(context.Background(), &all))
	add := func(name string, labels attribute.Set, n any) {
		parts := []string{strings.TrimPrefix(name, "messaging.")}
		for _, a := range labels.ToSlice() {
			parts = append(parts, strings.TrimPrefix(string(a.Key), "messaging.")+"="+a.Value.String())
		}
		lines = append(lines, fmt.Sprint(strings.Join(parts, " "), " ", n))
	}
	for _, m := range all.ScopeMetrics[0].Metrics {
		switch data := m.Data.(type) {
		case metricdata.Sum[int64]:
			for _, p := range data.DataPoints {
				add(m.Name, p.Attributes, p.Value)
			}
		case metricdata.Histogram[float64]:
			for _, p := range data.DataPoints {
				add(m.Name, p.Attributes, fmt.Sprintf("%d/%gs", p.Count, p.Sum))
			}
		}
	}
	slices.Sort(lines)
	return lines
}

// The metrics count messages, and calls with the time that they took, by what they were and how they ended.
func TestMetrics_HaveTheirFigures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x, p := newPiped(t)
		out, err := x.sub.Subscribe(t.Context(), "h:1/orders")
		require.NoError(t, err)
		require.NoError(t, x.pub.Publish("h:1/orders", newMessage(t.Context(), "1"), newMessage(t.Context(), "2")))
		p.err = context.DeadlineExceeded
		require.Error(t, x.pub.Publish("h:1/orders", newMessage(t.Context(), "3")))
		p.err = nil
		slow := func(err error) error {
			time.Sleep(2 * time.Second)
			return err
		}
		m := <-out
		_, err = x.tracing.Middleware(func(*message.Message) ([]*message.Message, error) { return nil, slow(nil) })(m) // without a Router it has no topic
		require.NoError(t, err)
		batch := []*message.Message{<-out}
		require.ErrorIs(t, x.tracing.Process(t.Context(), "h:1/orders", batch, func(context.Context) error { return slow(context.Canceled) }), context.Canceled)
		m.Ack()
		batch[0].Ack()
		require.NoError(t, x.sub.Close())
		process := x.span("process orders", 1)
		require.Equal(t, codes.Error, process.Status().Code)
		require.Equal(t, []string{"canceled", "g", "pipe"}, []string{get(process, "error.type"), get(process, "messaging.consumer.group.name"), get(process, "messaging.system")})
		require.Equal(t, codes.Unset, x.span("process", 1).Status().Code)
		require.Equal(t, []string{
			"client.consumed.messages consumer.group.name=g destination.name=orders operation.name=receive operation.type=receive system=pipe 2",
			"client.operation.duration destination.name=orders operation.name=send operation.type=send system=pipe 1/0s",
			"client.operation.duration error.type=timeout destination.name=orders operation.name=send operation.type=send system=pipe 1/0s",
			"client.sent.messages destination.name=orders operation.name=send operation.type=send system=pipe 2",
			"client.sent.messages error.type=timeout destination.name=orders operation.name=send operation.type=send system=pipe 1",
			"process.duration consumer.group.name=g destination.name= operation.name=process operation.type=process system=pipe 1/2s",
			"process.duration error.type=canceled consumer.group.name=g destination.name=orders operation.name=process operation.type=process system=pipe 1/2s",
		}, x.points())
	})
}

// The span of settling is there once, for a message that was settled, in a trace that is sampled; Close waits for it.
func TestSubscriber_SpansOfSettling(t *testing.T) {
	for _, test := range []struct {
		name   string
		settle func(m *message.Message, end context.CancelFunc)
		want   string
	}{
		{"ack", func(m *message.Message, end context.CancelFunc) { m.Ack(); end() }, "ack orders"},
		{"nack", func(m *message.Message, end context.CancelFunc) { m.Nack(); end() }, "nack orders"},
		{"neither", func(_ *message.Message, end context.CancelFunc) { end() }, ""},
	} {
		for _, sampler := range []sdktrace.Sampler{sdktrace.AlwaysSample(), sdktrace.NeverSample()} {
			synctest.Test(t, func(t *testing.T) {
				x, p := newPiped(t, sdktrace.WithSampler(sampler))
				out, err := x.sub.Subscribe(t.Context(), "orders")
				require.NoError(t, err)
				ctx, end := context.WithCancel(t.Context())
				defer end()
				m := newMessage(ctx, "1")
				x.tracing.inject(x.start(), m)
				p.out <- m
				test.settle(<-out, end)
				p.after = time.Minute
				began := time.Now()
				require.NoError(t, x.sub.Close())
				require.Equal(t, time.Minute, time.Since(began), "Close waits for the subscription")
				_, open := <-out
				require.False(t, open)
				var names []string
				for _, s := range x.recorder.Ended() {
					names = append(names, s.Name())
				}
				if test.want == "" || sampler == sdktrace.NeverSample() {
					require.Empty(t, names, test.name)
				} else {
					require.Equal(t, []string{test.want}, names)
				}
			})
		}
	}
}

// start is the context of a span that is under way.
func (x *traced) start() context.Context {
	ctx, _ := x.tracer.Start(context.Background(), "request")
	return ctx
}

// A message that no handler takes before its subscription ends goes back.
func TestSubscriber_GivesBackWhatNoHandlerTakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x, p := newPiped(t)
		p.err = errors.New("no such topic")
		_, err := x.sub.Subscribe(t.Context(), "orders")
		require.ErrorIs(t, err, p.err)
		p.err = nil
		_, err = x.sub.Subscribe(t.Context(), "orders")
		require.NoError(t, err)
		ctx, end := context.WithCancel(t.Context())
		m := newMessage(ctx, "1")
		p.out <- m
		synctest.Wait()
		end()
		<-m.Nacked()
		require.NoError(t, x.sub.Close())
	})
}

// A span in the message's own context is its parent, before that of its metadata; what a handler returns with a span of
// its own keeps it.
func TestTracing_WhichParentCounts(t *testing.T) {
	x, _ := newPiped(t)
	own, stored := x.start(), x.start()
	for _, single := range []bool{true, false} {
		m := newMessage(own, "1")
		x.tracing.inject(stored, m)
		messages := []*message.Message{m}
		if !single {
			messages = append(messages, newMessage(context.Background(), "2"))
		}
		require.NoError(t, x.pub.Publish("orders", messages...))
		send := x.recorder.Ended()[len(x.recorder.Ended())-1]
		require.Equal(t, "send orders", send.Name())
		require.Equal(t, trace.SpanContextFromContext(own).SpanID(), send.Parent().SpanID())
		at := trace.SpanContextFromContext(x.tracing.propagator.Extract(context.Background(), carrier(m)))
		require.Equal(t, trace.SpanContextFromContext(own).TraceID(), at.TraceID())
		require.Equal(t, single, at.SpanID() == send.SpanContext().SpanID())
	}
	m, kept, fresh := newMessage(context.Background(), "3"), newMessage(own, "4"), newMessage(context.Background(), "5")
	m.Metadata = nil
	x.tracing.inject(stored, m)
	_, err := x.tracing.Middleware(func(*message.Message) ([]*message.Message, error) { return []*message.Message{nil, kept, fresh}, nil })(m)
	require.NoError(t, err)
	process := x.recorder.Ended()[len(x.recorder.Ended())-1]
	require.Equal(t, trace.SpanContextFromContext(stored).SpanID(), process.Parent().SpanID())
	require.Equal(t, process.SpanContext().SpanID(), trace.SpanContextFromContext(m.Context()).SpanID())
	require.Equal(t, trace.SpanContextFromContext(own), trace.SpanContextFromContext(kept.Context()))
	require.Equal(t, process.SpanContext(), trace.SpanContextFromContext(fresh.Context()))
	require.Empty(t, get(process, "messaging.buffstreams.delivery.attempt"))
	require.Empty(t, get(process, "messaging.consumer.group.name"))
}

// A lookup links to 32 calls at most, and to none of other topics, nor to those whose topics name their address.
func TestResolve_LinksAreBounded(t *testing.T) {
	x, _ := newPiped(t)
	var calls []*send
	for range maxLinks + 5 {
		_, span := x.tracer.Start(context.Background(), "call")
		calls = append(calls, x.tracing.sends.begin("orders", destinationOf("orders"), span))
	}
	require.Nil(t, x.tracing.sends.begin("h:1/orders", destinationOf("h:1/orders"), trace.SpanFromContext(x.start())))
	require.Nil(t, x.tracing.sends.begin("orders", destinationOf("orders"), trace.SpanFromContext(context.Background())))
	x.tracing.OnResolved(hooks.Resolved{Topic: "orders"})
	x.tracing.OnResolved(hooks.Resolved{Topic: "others", Err: errors.New("no answer")})
	x.tracing.OnResolved(hooks.Resolved{Topic: "orders", Err: errors.New("no answer")})
	require.Empty(t, x.span("resolve others", 1).Links())
	require.Len(t, x.span("resolve orders", 1).Links(), maxLinks)
	require.Len(t, x.recorder.Ended(), 2)
	for i, one := range calls {
		require.True(t, one.noted)
		require.Len(t, x.tracing.sends.note("orders", io.EOF), min(maxLinks, len(calls)-i))
		x.tracing.sends.end("orders", one)
	}
	x.allEnded()
}

// What makes no message makes no span; a subscriber that prepares its topics still does.
func TestTracing_IsAsItsPubSub(t *testing.T) {
	x, p := newPiped(t)
	require.NoError(t, x.pub.Publish("orders"))
	p.err = errors.New("closed")
	require.ErrorIs(t, x.pub.Publish("orders"), p.err)
	require.Empty(t, x.recorder.Ended())
	require.NoError(t, x.sub.(message.SubscribeInitializer).SubscribeInitialize("orders"), "a pipe has nothing to prepare")
	prepared := x.tracing.Subscriber(preparing{p}, "").(message.SubscribeInitializer)
	require.ErrorContains(t, prepared.SubscribeInitialize("orders"), "no orders here")
}

// preparing is a Subscriber whose topics have to be made.
type preparing struct{ *pipe }

func (preparing) SubscribeInitialize(topic string) error { return errors.New("no " + topic + " here") }

// error.type is one of few.
func TestErrorType_IsOneOfFew(t *testing.T) {
	lookup := &net.DNSError{Err: "no such host", IsNotFound: true}
	for want, errs := range map[string][]error{
		"dns":                   {lookup, fmt.Errorf("%w: %w", buffstreams.ErrTimeout, lookup)},
		"timeout":               {buffstreams.ErrTimeout, fmt.Errorf("x: %w", context.DeadlineExceeded)},
		"canceled":              {fmt.Errorf("x: %w", context.Canceled)},
		"*net.AddrError":        {fmt.Errorf("x: %w", fmt.Errorf("y: %w", &net.AddrError{}))},
		"*errors.errorString":   {errors.New("x")},
		"*tracing.notDescribed": {&notDescribed{}},
	} {
		for _, err := range errs {
			require.Equal(t, want, errorType(err).Value.AsString(), err)
		}
	}
	b := newBounded(2)
	require.Equal(t, []string{"a", "b", other, "a"}, []string{b.value("a"), b.value("b"), b.value("c"), b.value("a")})
}

type notDescribed struct{}

func (*notDescribed) Error() string { return "" }
