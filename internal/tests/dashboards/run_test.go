package dashboards

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/hooks"
	"github.com/buffstreams/watermill-buffstreams/metrics"
	"github.com/buffstreams/watermill-buffstreams/route"
	"github.com/buffstreams/watermill-buffstreams/storage/outbox"
)

// run is two processes' worth of publishers and subscribers on one Metrics: everything that it shows happens.
type run struct {
	t        *testing.T
	m        *metrics.Metrics
	registry *prometheus.Registry
	manager  *buffstreams.Manager
}

func newMessage() *message.Message { return message.NewMessage(watermill.NewUUID(), []byte("order")) }

// newRun makes messages pass, fail, be delivered again and wait.
func newRun(t *testing.T) *run {
	t.Helper()
	r := &run{t: t, m: metrics.New(metrics.Options{}), registry: prometheus.NewRegistry()}
	r.registry.MustRegister(r.m)
	var err error
	r.manager, err = buffstreams.NewManager(buffstreams.ManagerConfig{
		Hooks: []hooks.Hook{r.m}, CloseTimeout: 100 * time.Millisecond, Acked: buffstreams.AckedConfig{WindowMessages: 4},
	})
	require.NoError(t, err)
	t.Cleanup(func() { _ = r.manager.Close() })
	r.m.Watch(r.manager)
	r.messages()
	r.keep()
	// What takes a second machine, or a peer that misbehaves.
	r.m.OnDialed(hooks.Dialed{Address: "127.0.0.1:0", Err: buffstreams.ErrUnauthenticated})
	r.m.OnMoved(hooks.Moved{Topic: "orders", Messages: 2, MayRepeat: 1})
	r.m.OnDuplicate(hooks.Duplicate{Listener: "127.0.0.1:0", Topic: "orders", Messages: 1})
	r.m.OnForgotten(hooks.Forgotten{Listener: "127.0.0.1:0", Streams: 1, Returned: true})
	return r
}

// messages passes messages through a group that acks, one that nacks until they fail, and a window that is full.
func (r *run) messages() {
	t := r.t
	sub, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{
		Manager: r.manager, ConsumerGroup: "billing", NackResendSleep: buffstreams.NoSleep, MaxAttempts: 2, CloseTimeout: time.Second,
	}, nil)
	require.NoError(t, err)
	t.Cleanup(func() { _ = sub.Close() })
	out, err := sub.Subscribe(context.Background(), "127.0.0.1:0/orders")
	require.NoError(t, err)
	addr, err := sub.Addr("127.0.0.1:0/orders")
	require.NoError(t, err)
	pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{Manager: r.manager, CloseTimeout: time.Second}, nil)
	require.NoError(t, err)
	t.Cleanup(func() { _ = pub.Close() })
	hasty, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{ // for what never succeeds
		Manager: r.manager, PublishTimeout: 200 * time.Millisecond, CloseTimeout: time.Second,
		Resolver: route.Func(func(context.Context, string) (route.Route, error) { return route.Route{}, errors.New("no answer") }),
	}, nil)
	require.NoError(t, err)
	t.Cleanup(func() { _ = hasty.Close() })
	topic := "tcp://" + addr.String() + "/orders"
	require.NoError(t, pub.Publish(topic, newMessage(), newMessage()))
	(<-out).Ack()
	(<-out).Nack()
	(<-out).Nack()
	require.NoError(t, pub.Drain(context.Background()))
	require.Error(t, hasty.Publish("logical", newMessage()))
	require.Error(t, hasty.Publish(topic, newMessage(), newMessage(), newMessage(), newMessage(), newMessage(), newMessage()))
	require.Error(t, hasty.Publish("tcp://127.0.0.1:1/orders", newMessage()))
	stranger, err := net.Dial("tcp", addr.String())
	require.NoError(t, err)
	_, err = stranger.Write([]byte("GET / HTTP/1.1\r\n\r\n"))
	require.NoError(t, err)
	_, _ = stranger.Read(make([]byte, 1))
	require.NoError(t, stranger.Close())
}

// keep keeps a message in an outbox.
func (r *run) keep() {
	t := r.t
	box, err := outbox.Open(outbox.Config{Dir: t.TempDir(), Hooks: []hooks.Hook{r.m}})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, box.Close()) })
	r.m.WatchOutbox(box)
	pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{Manager: r.manager, Outbox: box}, nil)
	require.NoError(t, err)
	t.Cleanup(func() { _ = pub.Close() })
	require.NoError(t, pub.Publish("127.0.0.1:1/orders", newMessage()))
}

// load writes a scrape as Prometheus' tests load it: with the same values, each half a minute, for half an hour.
func (r *run) load() string {
	families, err := r.registry.Gather()
	require.NoError(r.t, err)
	var b strings.Builder
	b.WriteString("load 30s\n")
	for _, f := range families {
		for _, m := range f.GetMetric() {
			writeSeries(&b, f.GetName(), m)
		}
	}
	return b.String()
}

func writeSeries(b *strings.Builder, name string, m *dto.Metric) {
	line := func(name string, v float64, more ...string) {
		l := []string{"__name__", name, "job", "j", "instance", "i"}
		for _, p := range m.GetLabel() {
			l = append(l, p.GetName(), p.GetValue())
		}
		fmt.Fprintf(b, "  %s %g+0x60\n", labels.FromStrings(append(l, more...)...), v)
	}
	switch {
	case m.GetCounter() != nil:
		line(name, m.GetCounter().GetValue())
	case m.GetGauge() != nil:
		line(name, m.GetGauge().GetValue())
	case m.GetHistogram() != nil:
		h := m.GetHistogram()
		for _, bucket := range h.GetBucket() {
			line(name+"_bucket", float64(bucket.GetCumulativeCount()), "le", strconv.FormatFloat(bucket.GetUpperBound(), 'g', -1, 64))
		}
		line(name+"_bucket", float64(h.GetSampleCount()), "le", "+Inf")
		line(name+"_sum", h.GetSampleSum())
		line(name+"_count", float64(h.GetSampleCount()))
	}
}

// evaluate returns what a query gives after 20 minutes of what was loaded.
func evaluate(t *testing.T, loaded, query string) promql.Vector {
	t.Helper()
	storage := promqltest.LoadedStorage(t, loaded)
	defer func() { _ = storage.Close() }()
	return evaluateIn(t, storage, query)
}

func evaluateIn(t *testing.T, storage *promqltestStorage, query string) promql.Vector {
	t.Helper()
	engine := promqltest.NewTestEngine(t, false, 0, 1_000_000)
	q, err := engine.NewInstantQuery(context.Background(), storage, nil, query, time.Unix(0, 0).Add(20*time.Minute))
	require.NoError(t, err, query)
	defer q.Close()
	result := q.Exec(context.Background())
	require.NoError(t, result.Err, query)
	vector, err := result.Vector()
	require.NoError(t, err, query)
	return vector
}

func readFile(t *testing.T, name string) []byte {
	t.Helper()
	content, err := os.ReadFile(name)
	require.NoError(t, err)
	return content
}
