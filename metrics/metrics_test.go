package metrics

import (
	"context"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/hooks"
	"github.com/buffstreams/watermill-buffstreams/storage/outbox"
	"github.com/buffstreams/watermill-buffstreams/store"
)

// deadAddress is an address at which nothing listens, nor ever will.
const deadAddress = "127.0.0.1:1"

// value returns a sample of a scrape: the sum of those that have the given labels.
func value(t *testing.T, m prometheus.Gatherer, name string, labels map[string]string) (sum float64) {
	t.Helper()
	families, err := m.Gather()
	require.NoError(t, err)
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
	samples:
		for _, s := range f.GetMetric() {
			for _, l := range s.GetLabel() {
				if want, ok := labels[l.GetName()]; ok && want != l.GetValue() {
					continue samples
				}
			}
			switch {
			case s.GetCounter() != nil:
				sum += s.GetCounter().GetValue()
			case s.GetGauge() != nil:
				sum += s.GetGauge().GetValue()
			default:
				sum += float64(s.GetHistogram().GetSampleCount())
			}
		}
	}
	return sum
}

// A run with an outbox, a group that is stuck, a Nack and a peer that is away shows as it is.
func TestMetrics_ShowARun(t *testing.T) {
	m := New(Options{})
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(m)
	manager, box := watched(t, m)
	sub, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{
		Manager: manager, ConsumerGroup: "billing", NackResendSleep: buffstreams.NoSleep, CloseTimeout: time.Second,
	}, nil)
	require.NoError(t, err)
	out, err := sub.Subscribe(context.Background(), "127.0.0.1:0/orders")
	require.NoError(t, err)
	addr, err := sub.Addr("127.0.0.1:0/orders")
	require.NoError(t, err)
	pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{Manager: manager, Outbox: box, CloseTimeout: time.Second}, nil)
	require.NoError(t, err)
	topic := addr.String() + "/orders"
	for range 3 {
		require.NoError(t, pub.Publish(topic, message.NewMessage(watermill.NewUUID(), []byte("order"))))
	}
	away := deadAddress
	require.NoError(t, pub.Publish(away+"/orders", message.NewMessage(watermill.NewUUID(), []byte("order"))))
	(<-out).Nack()
	(<-out).Ack()
	stuck := <-out

	is := func(want float64, name string, labels ...string) {
		t.Helper()
		by := map[string]string{}
		for i := 0; i < len(labels); i += 2 {
			by[labels[i]] = labels[i+1]
		}
		require.Eventually(t, func() bool { return value(t, registry, name, by) == want }, 10*time.Second, 50*time.Millisecond,
			"%s%v: %v", name, by, want)
	}
	is(1, "buffstreams_connections_total", "address", addr.String())
	is(1, "buffstreams_accepted_total")
	is(3, "buffstreams_sent_messages_total", "address", addr.String())
	is(3, "buffstreams_received_messages_total", "topic", "orders")
	is(1, "buffstreams_handled_messages_total", "topic", "orders", "group", "billing")
	is(1, "buffstreams_handle_seconds")
	is(1, "buffstreams_redelivered_total", "group", "billing")
	is(1, "buffstreams_settled_messages_total", "address", addr.String())
	is(2, "buffstreams_group_lag_messages", "group", "billing")
	is(1, "buffstreams_group_in_flight_messages")
	is(1, "buffstreams_address_state", "address", addr.String(), "state", "ready")
	is(1, "buffstreams_address_state", "address", away, "state", "gone")
	is(0, "buffstreams_dials_total", "address", addr.String(), "result", "failed")
	is(4, "buffstreams_outbox_appended_messages_total")
	is(4, "buffstreams_outbox_appends_total", "result", "ok")
	is(2, "buffstreams_outbox_pending_messages", "destination", addr.String())
	is(1, "buffstreams_outbox_pending_messages", "destination", away)
	require.Positive(t, value(t, registry, "buffstreams_dials_total", map[string]string{"result": "failed"}))
	require.Positive(t, value(t, registry, "buffstreams_group_oldest_unsettled_seconds", nil))
	require.Positive(t, value(t, registry, "buffstreams_outbox_oldest_unsettled_seconds", map[string]string{"destination": away}))
	require.Positive(t, value(t, registry, "buffstreams_outbox_sync_seconds", nil))
	problems, err := testutil.GatherAndLint(registry)
	require.NoError(t, err)
	require.Empty(t, problems, "the names are as Prometheus wants them")

	stuck.Ack()
	require.NoError(t, pub.Close())
	require.NoError(t, sub.Close())
	_ = manager.Close()
	require.NoError(t, box.Close())
	is(0, "buffstreams_group_lag_messages")
	require.Empty(t, m.managers)
	require.Empty(t, m.outboxes)
}

// hangs is an outbox whose disk has not answered since a time; zero: it answers.
type hangs struct{ since time.Time }

func (h hangs) Stats() store.OutboxStats {
	return store.OutboxStats{Name: "/mnt/orders", Delivering: true, WritingSince: h.since}
}

// A write that does not end has neither failed nor been counted: its age shows it.
func TestMetrics_ADiskThatHangs(t *testing.T) {
	for _, c := range []struct {
		disk    hangs
		seconds float64
	}{{hangs{}, 0}, {hangs{time.Now().Add(-time.Minute)}, 60}} {
		m := New(Options{})
		registry := prometheus.NewPedanticRegistry()
		registry.MustRegister(m)
		m.WatchOutbox(c.disk)
		writing := value(t, registry, "buffstreams_outbox_writing_seconds", map[string]string{"outbox": "/mnt/orders"})
		require.InDelta(t, c.seconds, writing, 30)
		require.Zero(t, value(t, registry, "buffstreams_outbox_failed", nil))
	}
}

// watched returns a Manager and an outbox that m watches.
func watched(t *testing.T, m *Metrics) (*buffstreams.Manager, *outbox.Outbox) {
	t.Helper()
	manager, err := buffstreams.NewManager(buffstreams.ManagerConfig{Hooks: []hooks.Hook{m}, CloseTimeout: time.Second})
	require.NoError(t, err)
	m.Watch(manager)
	box, err := outbox.Open(outbox.Config{Dir: t.TempDir(), Hooks: []hooks.Hook{m}})
	require.NoError(t, err)
	m.WatchOutbox(box)
	return manager, box
}

// 10,000 topics, groups, peers and destinations make no more series than the configuration says, and no message is lost from the sums.
func TestMetrics_SeriesAreBounded(t *testing.T) {
	const most, n = 20, 10_000
	m := New(Options{MaxLabels: most})
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(m)
	s, box := buffstreams.ManagerStats{}, store.OutboxStats{Name: "box"}
	listener := buffstreams.ListenerStats{Address: "l"}
	for i := range n {
		name := fmt.Sprintf("n%d", i)
		m.OnReceived(hooks.Received{Listener: "l", Topic: name, Messages: 1, Bytes: 1})
		m.OnHandled(hooks.Handled{Topic: name, Group: name, Messages: 1})
		m.OnSettled(hooks.Settled{Address: name, Topic: name, Messages: 1})
		m.OnDialed(hooks.Dialed{Address: name, Err: io.EOF})
		m.OnDialed(hooks.Dialed{Address: name, Err: buffstreams.ErrUnauthenticated})
		m.OnOutboxSynced(hooks.OutboxSynced{Outbox: name})
		m.OnOutboxAppended(hooks.OutboxAppended{Outbox: name, Destination: name, Topic: name, Messages: 1})
		m.OnAccepted(hooks.Accepted{Listener: "l", Peer: name, Principal: name, Agent: name})
		m.OnLost(hooks.Lost{Address: name, Listener: "l", Welcomed: true})
		m.OnRefused(hooks.Refused{Listener: name, Peer: name})
		m.OnConnected(hooks.Connected{Address: name})
		m.OnSent(hooks.Sent{Address: name, Messages: 1})
		m.OnDuplicate(hooks.Duplicate{Listener: name, Topic: name, Messages: 1})
		m.OnWindowFull(hooks.WindowFull{Address: name, Topic: name})
		m.OnRedelivered(hooks.Redelivered{Topic: name, Group: name})
		m.OnDeadLettered(hooks.DeadLettered{Topic: name, Group: name})
		m.OnRejected(hooks.Rejected{Address: name, Topic: name})
		m.OnResolved(hooks.Resolved{Topic: name})
		m.OnMoved(hooks.Moved{Topic: name, From: name, To: name, Messages: 1})
		m.OnForgotten(hooks.Forgotten{Listener: name, Streams: 1})
		s.Addresses = append(s.Addresses, buffstreams.AddressStats{Address: name, State: "ready", Pending: 1})
		box.Destinations = append(box.Destinations, store.DestinationStats{Name: name, Pending: 1})
		listener.Peers = append(listener.Peers, buffstreams.PeerStats{Address: name, Principal: name})
		listener.Topics = append(listener.Topics, buffstreams.TopicStats{Topic: name, Groups: []buffstreams.GroupStats{{Group: name, Lag: 1}}})
	}
	s.Listeners = append(s.Listeners, listener)
	registry.MustRegister(&fixed{m, s, box})

	families, err := registry.Gather()
	require.NoError(t, err)
	series := map[string]int{}
	for _, f := range families {
		series[f.GetName()] = len(f.GetMetric())
	}
	for name, count := range series {
		require.LessOrEqual(t, count, 2*(2*most+1), name)
	}
	require.EqualValues(t, n, value(t, registry, "buffstreams_received_messages_total", nil))
	require.EqualValues(t, n, value(t, registry, "buffstreams_handled_messages_total", nil))
	require.EqualValues(t, n, value(t, registry, "buffstreams_settled_messages_total", nil))
	require.EqualValues(t, n, value(t, registry, "buffstreams_group_lag_messages", nil))
	require.EqualValues(t, n, value(t, registry, "buffstreams_address_pending_messages", nil))
	require.EqualValues(t, n, value(t, registry, "buffstreams_listener_peers", nil))
	require.EqualValues(t, n, value(t, registry, "buffstreams_outbox_pending_messages", nil))
	require.EqualValues(t, n, value(t, registry, "buffstreams_accepted_total", nil))
	require.Equal(t, 1, int(value(t, registry, "buffstreams_accepted_lost_total", map[string]string{"listener": "l"}))/n, "a peer is no label")
	require.EqualValues(t, n-most, value(t, registry, "buffstreams_received_messages_total", map[string]string{"topic": Other}))
	require.EqualValues(t, 1, value(t, registry, "buffstreams_received_messages_total", map[string]string{"topic": "n3"}))
	require.LessOrEqual(t, len(*m.events.handled.known.Load()), 2*most)
}

// fixed collects states that no Manager and no outbox has.
type fixed struct {
	m     *Metrics
	stats buffstreams.ManagerStats
	box   store.OutboxStats
}

func (*fixed) Describe(chan<- *prometheus.Desc) {}

func (f *fixed) Collect(ch chan<- prometheus.Metric) {
	g := newGauges(f.m.descs, f.m.labels)
	g.addManager(f.stats)
	g.addOutbox(f.box)
	g.send(ch)
}

// Every hook of the package is implemented: one that is forgotten would leave its series at 0.
func TestMetrics_WatchEverything(t *testing.T) {
	var m any = New(Options{})
	_ = m.(interface {
		hooks.DialedHook
		hooks.ConnectedHook
		hooks.LostHook
		hooks.AcceptedHook
		hooks.RefusedHook
		hooks.MovedHook
		hooks.ResolvedHook
		hooks.ForgottenHook
		hooks.SentHook
		hooks.ReceivedHook
		hooks.DuplicateHook
		hooks.SettledHook
		hooks.HandledHook
		hooks.WindowFullHook
		hooks.RedeliveredHook
		hooks.DeadLetteredHook
		hooks.RejectedHook
		hooks.OutboxAppendedHook
		hooks.OutboxSyncedHook
	})
}
