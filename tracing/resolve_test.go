package tracing

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/codes"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/hooks"
	"github.com/buffstreams/watermill-buffstreams/route"
)

// mute is a DNS that no question reaches.
var mute = &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
	return nil, errors.New("network is unreachable")
}}

// resolving makes x publish to the topic orders, which r resolves.
func (x *traced) resolving(r route.Resolver, timeout time.Duration) {
	x.t.Helper()
	pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{
		Resolver: r, PublishTimeout: timeout, CloseTimeout: time.Second,
		ManagerConfig: buffstreams.ManagerConfig{Hooks: []hooks.Hook{x.tracing}, CloseTimeout: time.Second},
	}, nil)
	require.NoError(x.t, err)
	x.t.Cleanup(func() { require.NoError(x.t, pub.Close()) })
	x.pub = x.tracing.Publisher(pub)
}

// A call that the DNS does not answer fails with that, and each lookup is a span of its own.
func TestResolve_ACallThatTheDNSFails(t *testing.T) {
	x := newTraced(t, buffstreams.SubscriberConfig{})
	x.resolving(&route.DNS{Address: "host.test:1", Resolver: mute}, 500*time.Millisecond)
	require.ErrorIs(t, x.pub.Publish("orders", newMessage(context.Background(), "order")), buffstreams.ErrTimeout)
	send, resolve := x.span("send orders", 1), x.span("resolve orders", 1)
	require.Equal(t, codes.Error, send.Status().Code)
	for _, s := range []sdktrace.ReadOnlySpan{send, resolve} {
		require.Contains(t, s.Status().Description, "host.test")
		require.Contains(t, s.Status().Description, "network is unreachable")
		require.Equal(t, "dns", get(s, "error.type"))
		require.Equal(t, "orders", get(s, "messaging.destination.name"))
		require.Equal(t, trace.SpanKindProducer == s.SpanKind(), s == send)
	}
	require.NotEqual(t, send.SpanContext().TraceID(), resolve.SpanContext().TraceID(), "lookups are of no message")
	require.Len(t, resolve.Links(), 1)
	require.Equal(t, send.SpanContext().SpanID(), resolve.Links()[0].SpanContext.SpanID())
	require.Len(t, send.Events(), 2, "the lookup, once however often it fails, and the end of the call")
	x.allEnded()
}

// A call that has waited for the DNS and succeeds has the reason of the wait.
func TestResolve_ACallThatWaitsForTheDNS(t *testing.T) {
	x := newTraced(t, buffstreams.SubscriberConfig{})
	listener, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{CloseTimeout: time.Second}, nil)
	require.NoError(t, err)
	defer func() { require.NoError(t, listener.Close()) }()
	out, err := listener.Subscribe(context.Background(), "127.0.0.1:0/orders")
	require.NoError(t, err)
	at, err := listener.Addr("127.0.0.1:0/orders")
	require.NoError(t, err)
	var asked atomic.Int32
	down := &route.DNS{Address: "host.test:1", Resolver: mute}
	x.resolving(route.Func(func(ctx context.Context, topic string) (route.Route, error) {
		if asked.Add(1) <= 2 {
			return down.Resolve(ctx, topic)
		}
		return route.Route{Addresses: []string{at.String()}}, nil
	}), 20*time.Second)
	require.NoError(t, x.pub.Publish("orders", newMessage(context.Background(), "order")))
	(<-out).Ack()
	send := x.span("send orders", 1)
	require.Equal(t, codes.Unset, send.Status().Code)
	require.Len(t, send.Events(), 1)
	require.Contains(t, fmt.Sprint(send.Events()[0].Attributes), "host.test")
	x.span("resolve orders", 2)
	require.Len(t, x.recorder.Ended(), 3, "a lookup that succeeds leaves no span: %v", x.recorder.Ended())
	x.allEnded()
}

// A lookup that fails while nothing waits for it is seen all the same, with the time that it took.
func TestResolve_ALookupInTheBackground(t *testing.T) {
	x := newTraced(t, buffstreams.SubscriberConfig{})
	x.tracing.OnResolved(hooks.Resolved{Topic: "orders", Took: time.Minute, Err: &net.DNSError{Err: "server misbehaving", Name: "host.test"}})
	resolve := x.span("resolve orders", 1)
	require.Empty(t, resolve.Links())
	require.Equal(t, time.Minute, resolve.EndTime().Sub(resolve.StartTime()))
	require.False(t, resolve.Parent().IsValid())
}

// allEnded holds that no call is remembered that has returned.
func (x *traced) allEnded() {
	x.t.Helper()
	x.tracing.sends.mu.Lock()
	defer x.tracing.sends.mu.Unlock()
	require.Empty(x.t, x.tracing.sends.by)
}

// nowhere is a Publisher that takes everything.
type nowhere struct{ message.Publisher }

func (nowhere) Publish(string, ...*message.Message) error { return nil }

// 10,000 topics at 10,000 peers have no more series than the configuration says, and nothing is kept of them.
func TestTracing_TenThousandPeers(t *testing.T) {
	const most, n = 20, 10_000
	reader := sdkmetric.NewManualReader()
	tracing, err := New(Options{
		TracerProvider: sdktrace.NewTracerProvider(), MeterProvider: sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)), MaxDestinations: most,
	})
	require.NoError(t, err)
	pub := tracing.Publisher(nowhere{})
	for i := range n {
		for _, topic := range []string{fmt.Sprintf("10.0.%d.%d:5031/orders", i/250, i%250), fmt.Sprintf("t%d", i), fmt.Sprintf("10.0.0.1:5031/t%d", i)} {
			require.NoError(t, pub.Publish(topic, message.NewMessage(watermill.NewUUID(), nil)))
		}
		tracing.OnResolved(hooks.Resolved{Topic: fmt.Sprintf("t%d", i), Err: errors.New("no answer")})
	}
	var all metricdata.ResourceMetrics
	require.NoError(t, reader.Collect(context.Background(), &all))
	for _, m := range all.ScopeMetrics[0].Metrics {
		switch data := m.Data.(type) {
		case metricdata.Sum[int64]:
			require.LessOrEqual(t, len(data.DataPoints), most+1, m.Name)
			var total int64
			for _, p := range data.DataPoints {
				total += p.Value
			}
			require.EqualValues(t, 3*n, total, m.Name)
		case metricdata.Histogram[float64]:
			require.LessOrEqual(t, len(data.DataPoints), most+1, m.Name)
		}
	}
	require.Empty(t, tracing.sends.by)
	require.Len(t, tracing.bounded.seen, most)
}
