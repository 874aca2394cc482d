package metrics

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/hooks"
	"github.com/buffstreams/watermill-buffstreams/store"
)

// samples are all that m shows and is not 0, a line for each. A histogram shows how many there were, and their sum.
func samples(t *testing.T, m prometheus.Gatherer) (lines []string) {
	t.Helper()
	families, err := m.Gather()
	require.NoError(t, err)
	for _, f := range families {
		for _, s := range f.GetMetric() {
			parts := []string{f.GetName()}
			for _, l := range s.GetLabel() {
				parts = append(parts, l.GetName()+"="+l.GetValue())
			}
			line := strings.Join(parts, " ")
			switch {
			case s.GetHistogram() != nil:
				line += fmt.Sprintf(" %d/%gs", s.GetHistogram().GetSampleCount(), s.GetHistogram().GetSampleSum())
			default:
				line += fmt.Sprintf(" %g", s.GetCounter().GetValue()+s.GetGauge().GetValue())
			}
			lines = append(lines, line)
		}
	}
	slices.Sort(lines)
	return slices.DeleteFunc(lines, func(s string) bool { return s[len(s)-2:] == " 0" || s[len(s)-5:] == " 0/0s" })
}

// eventSamples are those of TestMetrics_EventsHaveTheirSeries.
var eventSamples = []string{
	"accepted_lost_total at=x listener=lost here 1",
	"accepted_total at=x listener=accepted 1",
	"connect_failures_total address=dialed at=x reason=other 1",
	"connect_failures_total address=dialed at=x reason=unauthenticated 1",
	"connect_failures_total address=not welcome at=x reason=closed 1",
	"connections_lost_total address=lost at=x 1",
	"connections_total address=connected at=x 1",
	"dead_letters_total at=x group=g topic=dead 1",
	"dials_total address=dialed at=x result=failed 2",
	"dials_total address=dialed at=x result=ok 1",
	"duplicates_total at=x listener=l topic=duplicate 11",
	"forgotten_streams_total at=x listener=forgotten returned=false 5",
	"forgotten_streams_total at=x listener=forgotten returned=true 2",
	"handle_seconds at=x group=g topic=handled 1/5s",
	"handled_bytes_total at=x group=g topic=handled 130",
	"handled_messages_total at=x group=g topic=handled 13",
	"moved_may_repeat_total at=x topic=moved 3",
	"moved_messages_total at=x topic=moved 7",
	"moved_streams_total at=x topic=moved 1",
	"outbox_append_seconds at=x outbox=o 2/3s",
	"outbox_appended_bytes_total at=x outbox=o 140",
	"outbox_appended_messages_total at=x outbox=o 14",
	"outbox_appends_total at=x outbox=o result=failed 1",
	"outbox_appends_total at=x outbox=o result=ok 1",
	"outbox_sync_seconds at=x outbox=o 2/9s",
	"outbox_syncs_total at=x outbox=o result=failed 1",
	"outbox_syncs_total at=x outbox=o result=ok 1",
	"received_bytes_total at=x listener=l topic=received 90",
	"received_messages_total at=x listener=l topic=received 9",
	"redelivered_total at=x group=g topic=again 1",
	"refused_total at=x listener=refused 1",
	"rejected_total address=a at=x topic=rejected 1",
	"resolve_seconds at=x 2/6s",
	"resolved_total at=x result=failed topic=resolved 1",
	"resolved_total at=x result=ok topic=resolved 1",
	"sent_bytes_total address=sent at=x 80",
	"sent_messages_total address=sent at=x 8",
	"settle_seconds address=a at=x 1/3s",
	"settled_messages_total address=a at=x topic=settled 13",
	"window_full_seconds_total address=a at=x topic=full 6",
	"window_full_total address=a at=x topic=full 1",
}

// Each field of each event goes to the series that is its own, with the labels that it names.
func TestMetrics_EventsHaveTheirSeries(t *testing.T) {
	m := New(Options{Namespace: "bs", ConstLabels: prometheus.Labels{"at": "x"}})
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(m)
	failed := errors.New("no answer")
	m.OnDialed(hooks.Dialed{Address: "dialed", Took: time.Second})
	m.OnDialed(hooks.Dialed{Address: "dialed", Err: failed})
	m.OnDialed(hooks.Dialed{Address: "dialed", Err: buffstreams.ErrUnauthenticated})
	m.OnConnected(hooks.Connected{Address: "connected"})
	m.OnLost(hooks.Lost{Listener: "lost here", Err: io.EOF, Welcomed: true})
	m.OnLost(hooks.Lost{Address: "lost", Err: io.EOF, Welcomed: true})
	m.OnLost(hooks.Lost{Address: "not welcome", Err: io.EOF})
	m.OnAccepted(hooks.Accepted{Listener: "accepted"})
	m.OnRefused(hooks.Refused{Listener: "refused"})
	m.OnMoved(hooks.Moved{Topic: "moved", From: "a", To: "b", Messages: 7, MayRepeat: 3})
	m.OnResolved(hooks.Resolved{Topic: "resolved", Took: 2 * time.Second})
	m.OnResolved(hooks.Resolved{Topic: "resolved", Took: 4 * time.Second, Err: failed})
	m.OnForgotten(hooks.Forgotten{Listener: "forgotten", Streams: 5})
	m.OnForgotten(hooks.Forgotten{Listener: "forgotten", Streams: 2, Returned: true})
	m.OnSent(hooks.Sent{Address: "sent", Messages: 8, Bytes: 80})
	m.OnReceived(hooks.Received{Listener: "l", Topic: "received", Messages: 9, Bytes: 90})
	m.OnDuplicate(hooks.Duplicate{Listener: "l", Topic: "duplicate", Messages: 11})
	m.OnSettled(hooks.Settled{Address: "a", Topic: "settled", Messages: 12, Age: 3 * time.Second})
	m.OnSettled(hooks.Settled{Address: "a", Topic: "settled", Messages: 1}) // its age is not known
	m.OnHandled(hooks.Handled{Topic: "handled", Group: "g", Messages: 13, Bytes: 130, Age: 5 * time.Second})
	m.OnWindowFull(hooks.WindowFull{Address: "a", Topic: "full", Wait: 6 * time.Second})
	m.OnRedelivered(hooks.Redelivered{Topic: "again", Group: "g"})
	m.OnDeadLettered(hooks.DeadLettered{Topic: "dead", Group: "g"})
	m.OnRejected(hooks.Rejected{Address: "a", Topic: "rejected"})
	m.OnOutboxAppended(hooks.OutboxAppended{Outbox: "o", Messages: 14, Bytes: 140, Took: time.Second})
	m.OnOutboxAppended(hooks.OutboxAppended{Outbox: "o", Messages: 99, Bytes: 99, Took: 2 * time.Second, Err: failed})
	m.OnOutboxSynced(hooks.OutboxSynced{Outbox: "o", Took: 4 * time.Second})
	m.OnOutboxSynced(hooks.OutboxSynced{Outbox: "o", Took: 5 * time.Second, Err: failed})
	requireSamples(t, eventSamples, registry)
}

func requireSamples(t *testing.T, want []string, m prometheus.Gatherer) {
	t.Helper()
	want = slices.Clone(want)
	for i := range want {
		want[i] = "bs_" + want[i]
	}
	require.Equal(t, want, samples(t, m))
}

// Each field of what stands goes to the gauge that is its own; what two Managers and outboxes have is added up, but ages
// and sizes of one destination, of which the largest counts.
func TestMetrics_StatesHaveTheirSeries(t *testing.T) {
	m := New(Options{Namespace: "bs"})
	g := newGauges(m.descs, m.labels)
	old := func(seconds int) time.Time { return g.now.Add(-time.Duration(seconds) * time.Second) }
	for _, n := range []int{1, 2} { // the second one has twice as much
		g.addManager(buffstreams.ManagerStats{
			NotReady: make([]string, 3*n), Memory: buffstreams.MemoryStats{Sending: 4 * n, Receiving: 5 * n, Limit: 6 * n},
			Addresses: []buffstreams.AddressStats{
				{Address: "a", State: "ready", Pending: 7 * n, Unreceived: 8 * n, OldestUnsettled: old(9 * n)},
				{Address: "b", State: "idle", OldestUnsettled: old(-5)}, // a clock that was set back
			},
			Listeners: []buffstreams.ListenerStats{{
				Address: "l", Bound: "not this", Peers: make([]buffstreams.PeerStats, 10*n), Publishers: 11 * n,
				Topics: []buffstreams.TopicStats{{
					Topic: "t", Held: 12 * n, Window: 13 * n, Shortage: "no room",
					Groups: []buffstreams.GroupStats{{Group: "g", Lag: 14 * n, InFlight: 15 * n, Members: 16 * n, OldestUnsettled: old(17 * n), WaitForKey: 18 * n}},
				}},
			}},
		})
		g.addOutbox(store.OutboxStats{
			Name: "o", QuotaBytes: int64(19 * n), Err: "full", WritingSince: old(20 * n), Pending: 99,
			Destinations: []store.DestinationStats{{Name: "d", Pending: uint64(21 * n), Bytes: int64(22 * n), OldestUnsettled: old(23 * n)}},
		})
	}
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(&gathered{g})
	requireSamples(t, []string{
		"address_oldest_unsettled_seconds address=a 18",
		"address_pending_messages address=a 21",
		"address_state address=a state=ready 2",
		"address_state address=b state=idle 2",
		"address_unreceived_messages address=a 24",
		"group_in_flight_messages group=g listener=l topic=t 45",
		"group_lag_messages group=g listener=l topic=t 42",
		"group_members group=g listener=l topic=t 48",
		"group_oldest_unsettled_seconds group=g listener=l topic=t 34",
		"group_waiting_for_key_messages group=g listener=l topic=t 54",
		"listener_peers listener=l 30",
		"listener_publishers listener=l 33",
		"memory_bytes side=receiving 15",
		"memory_bytes side=sending 12",
		"memory_limit_bytes side=receiving 18",
		"memory_limit_bytes side=sending 18",
		"not_ready 9",
		"outbox_failed outbox=o 2",
		"outbox_oldest_unsettled_seconds destination=d outbox=o 46",
		"outbox_pending_bytes destination=d outbox=o 44",
		"outbox_pending_messages destination=d outbox=o 63",
		"outbox_quota_bytes outbox=o 38",
		"outbox_writing_seconds outbox=o 40",
		"topic_held_messages listener=l topic=t 36",
		"topic_short listener=l topic=t 2",
		"topic_window_messages listener=l topic=t 39",
	}, registry)
}

// gathered is a Collector of what was added.
type gathered struct{ *gauges }

func (*gathered) Describe(chan<- *prometheus.Desc)      {}
func (g *gathered) Collect(ch chan<- prometheus.Metric) { g.send(ch) }

// One value more than MaxLabels is "other", and so is one pair more than twice as many; what was first stays.
func TestLabels_TheLastThatHasItsOwn(t *testing.T) {
	b := newBounded(2)
	require.Equal(t, []string{"a", "b", Other, "a", "b"}, []string{b.value("a"), b.value("b"), b.value("c"), b.value("a"), b.value("b")})
	c := newChildren(newBounded(2), newBounded(3), func(p pair) *pair { return &p })
	var got []string
	for range 2 {
		for _, p := range []string{"ax", "ay", "az", "bx", "by", "cx", "aw"} {
			made := c.get(p[:1], p[1:])
			got = append(got, made.a+made.b)
		}
	}
	require.Equal(t, "ax ay az bx otherother otherother otherother ax ay az bx otherother otherother otherother", strings.Join(got, " "))
	require.Same(t, c.get("b", "y"), c.get("c", "x"))
	require.Len(t, c.made, 5)
	alone := newChildren(newBounded(1), nil, func(p pair) *pair { return &p })
	require.Equal(t, []pair{{"a", ""}, {Other, ""}, {"a", ""}}, []pair{*alone.get("a", ""), *alone.get("b", ""), *alone.get("a", "")})
	pairs := newGauges(newDescs(Options{}), newLabels(1))
	for _, topic := range []string{"a", "b", "c", "d", "a"} {
		pairs.add(topicHeld, 1, "l", topic)
	}
	require.Equal(t, map[series]float64{
		{topicHeld, [3]string{"l", "a"}}: 2, {topicHeld, [3]string{"l", "b"}}: 1, {topicHeld, [3]string{Other, Other}}: 2,
	}, pairs.values)
}
