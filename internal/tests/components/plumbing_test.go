package components

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/components/delay"
	"github.com/ThreeDotsLabs/watermill/components/fanin"
	"github.com/ThreeDotsLabs/watermill/components/forwarder"
	"github.com/ThreeDotsLabs/watermill/components/metrics"
	"github.com/ThreeDotsLabs/watermill/components/requeuer"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/message/router/middleware"
	"github.com/ThreeDotsLabs/watermill/message/subscriber"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
)

// collect handles a topic and returns what came.
func collect(t *testing.T, p *pair, topic string) *tally {
	t.Helper()
	var got tally
	r := newRouter(t)
	r.AddConsumerHandler("collect", topic, p.subscriber(t, "collect", nil), func(m *message.Message) error {
		got.add(string(m.Payload))
		return nil
	})
	run(t, r)
	return &got
}

// A forwarder between two services: what it cannot deliver is not acked to where it came from.
func TestForwarder_BetweenTwoServices(t *testing.T) {
	p, target := newPair(t), newPair(t)
	out, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{Manager: p.listens}, nil)
	require.NoError(t, err)
	t.Cleanup(func() { _ = out.Close() })
	f, err := forwarder.NewForwarder(p.subscriber(t, "forwarder", nil), out, watermill.NopLogger{}, forwarder.Config{
		CloseTimeout: patience,
	})
	require.NoError(t, err)
	run(t, f)
	got := collect(t, target, "orders")
	pub := forwarder.NewPublisher(p.publisher(t), forwarder.PublisherConfig{})
	require.NoError(t, pub.Publish(target.topic("orders"), newMessages(20)...))
	require.Equal(t, numbers(20), got.await(t, 20))
}

func TestFanIn_ManyTopicsIntoOne(t *testing.T) {
	p, target := newPair(t), newPair(t)
	out, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{Manager: p.listens}, nil)
	require.NoError(t, err)
	t.Cleanup(func() { _ = out.Close() })
	f, err := fanin.NewFanIn(p.subscriber(t, "fanin", nil), out, fanin.Config{
		SourceTopics: []string{"a", "b"}, TargetTopic: target.topic("all"), CloseTimeout: patience,
	}, nil)
	require.NoError(t, err)
	run(t, f)
	got := collect(t, target, "all")
	pub := p.publisher(t)
	require.NoError(t, pub.Publish("a", newMessages(10)...))
	require.NoError(t, pub.Publish("b", newMessages(10)...))
	require.ElementsMatch(t, append(numbers(10), numbers(10)...), got.await(t, 20))
}

// A message that fails goes to the poison queue, from there back to its topic, and is handled at last.
func TestRequeuer_BringsBackWhatWasPoisoned(t *testing.T) {
	p, grave := newPair(t), newPair(t)
	back, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{Manager: grave.listens}, nil)
	require.NoError(t, err)
	t.Cleanup(func() { _ = back.Close() })
	router := newRouter(t)
	_, err = requeuer.NewRequeuer(requeuer.Config{
		Subscriber: grave.subscriber(t, "requeuer", nil), SubscribeTopic: "poison", Publisher: back, Router: router,
		GeneratePublishTopic: func(q requeuer.GeneratePublishTopicParams) (string, error) {
			return p.topic(q.Message.Metadata.Get(middleware.PoisonedTopicKey)), nil
		},
		Delay: time.Millisecond,
	}, nil)
	require.NoError(t, err)
	run(t, router)
	poison, err := middleware.PoisonQueue(grave.publisher(t), "poison")
	require.NoError(t, err)
	var got tally
	pub := behind(t, p, func(m *message.Message) error {
		if got.add(string(m.Payload) + "/" + m.Metadata.Get(requeuer.RetriesKey)); m.Metadata.Get(requeuer.RetriesKey) != "2" {
			return errWanted
		}
		return nil
	}, poison)
	require.NoError(t, pub.Publish("orders", newMessage("x")))
	require.Equal(t, []string{"x/", "x/1", "x/2"}, got.await(t, 3))
}

// The delay travels as metadata. This transport does not wait for it; a Requeuer or handler can read it.
func TestDelay_TravelsAndDoesNotDelay(t *testing.T) {
	p := newPair(t)
	pub, err := delay.NewPublisher(p.publisher(t), delay.PublisherConfig{
		DefaultDelayGenerator: func(delay.DefaultDelayGeneratorParams) (delay.Delay, error) { return delay.For(time.Hour), nil },
	})
	require.NoError(t, err)
	messages, err := p.subscriber(t, "g", nil).Subscribe(context.Background(), "orders")
	require.NoError(t, err)
	require.NoError(t, pub.Publish("orders", newMessage("x")))
	m := receive(t, messages)
	m.Ack()
	require.Equal(t, "1h0m0s", m.Metadata.Get(delay.DelayedForKey))
}

// Watermill's Prometheus decorators count on both sides.
func TestMetrics_CountOnBothSides(t *testing.T) {
	p := newPair(t)
	registry := prometheus.NewRegistry()
	builder := metrics.NewPrometheusMetricsBuilder(registry, "shop", "")
	pub, err := builder.DecoratePublisher(p.publisher(t))
	require.NoError(t, err)
	var got tally
	r := newRouter(t)
	builder.AddPrometheusRouterMetrics(r)
	r.AddConsumerHandler("h", "orders", p.subscriber(t, "g", nil), failing(1, &got))
	run(t, r)
	require.NoError(t, pub.Publish("orders", newMessages(5)...))
	got.await(t, 10)
	counts := func() map[string]float64 {
		families, err := registry.Gather()
		require.NoError(t, err)
		found := map[string]float64{}
		for _, f := range families {
			for _, m := range f.GetMetric() {
				name := f.GetName()
				for _, l := range m.GetLabel() {
					if l.GetName() == "acked" || l.GetName() == "success" {
						name = fmt.Sprintf("%s %s=%s", name, l.GetName(), l.GetValue())
					}
				}
				found[name] += m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
			}
		}
		return found
	}
	want := map[string]float64{
		"shop_publish_time_seconds success=true":               1, // a call
		"shop_subscriber_messages_received_total acked=acked":  5,
		"shop_subscriber_messages_received_total acked=nacked": 5,
		"shop_handler_execution_time_seconds success=true":     5,
		"shop_handler_execution_time_seconds success=false":    5,
	}
	require.Eventually(t, func() bool {
		found := counts()
		for name, n := range want {
			if found[name] != n {
				return false
			}
		}
		return true
	}, patience, time.Millisecond, "%v", counts())
}

// Transforms change messages on their way out and in, and see a message again when it is redelivered.
func TestTransform_OnBothSides(t *testing.T) {
	p := newPair(t)
	out, err := message.MessageTransformPublisherDecorator(func(m *message.Message) { m.Metadata.Set("from", "here") })(p.publisher(t))
	require.NoError(t, err)
	in, err := message.MessageTransformSubscriberDecorator(func(m *message.Message) {
		m.Payload = []byte(m.Metadata.Get("from") + " " + string(m.Payload))
	})(p.subscriber(t, "g", nil))
	require.NoError(t, err)
	messages, err := in.Subscribe(context.Background(), "orders")
	require.NoError(t, err)
	require.NoError(t, out.Publish("orders", newMessages(2)...))
	for _, want := range []string{"here 0", "here 0", "here 1", "here 1"} {
		m := receive(t, messages)
		require.Equal(t, want, string(m.Payload), "a redelivery has the bytes that arrived")
		if _, again := redelivered(m); again {
			m.Ack()
		} else {
			m.Nack()
		}
	}
	require.NoError(t, in.Close())
}

func redelivered(m *message.Message) (attempt int, again bool) {
	d, _ := buffstreams.DeliveryFromContext(m.Context())
	return d.Attempt, d.Attempt > 1
}

// BulkRead is what tests of services read with.
func TestBulkRead_ReadsWhatCame(t *testing.T) {
	p := newPair(t)
	messages, err := p.subscriber(t, "g", func(c *buffstreams.SubscriberConfig) { c.MaxInFlight = 4 }).Subscribe(context.Background(), "orders")
	require.NoError(t, err)
	require.NoError(t, p.publisher(t).Publish("orders", newMessages(10)...))
	got, all := subscriber.BulkRead(messages, 10, patience)
	require.True(t, all)
	require.Len(t, got, 10)
}

// lockedBuffer is an io.Writer for several goroutines.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// Through slog, a state of a connection is one line with fields, and payloads are in none.
func TestSlog_HasTheFields(t *testing.T) {
	var out lockedBuffer
	logger := watermill.NewSlogLogger(slog.New(slog.NewJSONHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug})))
	listens, address := newListening(t, buffstreams.ManagerConfig{Logger: logger})
	p := &pair{listens: listens, sends: newManager(t, buffstreams.ManagerConfig{Logger: logger}), address: address}
	sub, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{
		Manager: listens, ConsumerGroup: "g", MaxAttempts: 1,
	}, logger)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, sub.Close()) })
	messages, err := sub.Subscribe(context.Background(), p.topic("orders"))
	require.NoError(t, err)
	require.NoError(t, p.publisher(t).Publish(p.topic("orders"), newMessage("a secret")))
	receive(t, messages).Nack()
	require.Eventually(t, func() bool { return strings.Contains(out.String(), "Message rejected to its publisher") }, patience, time.Millisecond)
	require.Contains(t, out.String(), `"provider":"buffstreams"`)
	require.Contains(t, out.String(), `"consumer_group":"g"`)
	require.NotContains(t, out.String(), "a secret")
}
