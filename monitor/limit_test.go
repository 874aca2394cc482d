package monitor

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/store"
)

// Of each list the row that is in the most trouble is kept, wherever it stands, and what is left off is counted.
func TestTrim_KeepsTheWorstOfEachList(t *testing.T) {
	address := func(name, state string, pending int) Address {
		return Address{"m", buffstreams.AddressStats{Address: name, State: state, Pending: pending}}
	}
	topics := []buffstreams.TopicStats{
		{Topic: "none"}, {Topic: "behind", Groups: []buffstreams.GroupStats{{Lag: 1}, {Lag: 5}, {Lag: 2}}}, {Topic: "less", Groups: []buffstreams.GroupStats{{Lag: 4}}},
	}
	destinations := []store.DestinationStats{{Name: "few", Pending: 1}, {Name: "many", Pending: 3, Topics: []store.OutboxTopicStats{
		{Name: "few", Pending: 1}, {Name: "many", Pending: 2},
	}}}
	s := Stats{
		LeftOff: map[string]int{}, NotReady: []string{"a", "b"}, Stuck: []Stuck{{What: "worst"}, {What: "less"}, {What: "least"}},
		Addresses: []Address{
			address("ready", "ready", 9), address("failed", "failed", 1), address("failed too", "failed", 2), address("gone", "gone", 9), address("idle", "idle", 9),
		},
		Subscriptions: []Subscription{{"s", buffstreams.SubscriptionStats{Topic: "quick"}}, {"s", buffstreams.SubscriptionStats{Topic: "slow", Slow: 2}}},
		Listeners: []Listener{
			{"l", buffstreams.ListenerStats{Bound: "1", Topics: topics, Peers: make([]buffstreams.PeerStats, 4)}}, {"l", buffstreams.ListenerStats{Bound: "2"}},
		},
		Outboxes: []OutboxStats{{"o", store.OutboxStats{Name: "1", Destinations: destinations}}, {"o", store.OutboxStats{Name: "2"}}},
	}
	s.Addresses[2].Streams = []buffstreams.StreamStats{{Topic: "pending", Pending: 9}, {Topic: "waiting", Waiting: 1}, {Topic: "neither"}}
	s.trim(1)
	require.Equal(t, []string{"a"}, s.NotReady)
	require.Equal(t, []Stuck{{What: "worst"}}, s.Stuck)
	require.Equal(t, "failed too", s.Addresses[0].Address)
	require.Equal(t, "waiting", s.Addresses[0].Streams[0].Topic)
	require.Equal(t, "slow", s.Subscriptions[0].Topic)
	require.Equal(t, "behind", s.Listeners[0].Topics[0].Topic)
	require.Equal(t, "many", s.Outboxes[0].Destinations[0].Name)
	require.Equal(t, "many", s.Outboxes[0].Destinations[0].Topics[0].Name)
	require.Equal(t, map[string]int{
		"not_ready": 1, "stuck": 2, "addresses": 4, "streams": 2, "subscriptions": 1, "listeners": 1, "topics": 2, "peers": 3, "outboxes": 1,
		"destinations": 1, "outbox_topics": 1,
	}, s.LeftOff)
	require.Equal(t, []string{"none", "behind"}, []string{topics[0].Topic, topics[1].Topic}, "what others may have is not changed")

	var order []int
	for _, state := range []string{"idle", "ready", "connecting", "draining", "gone", "failed", "silent", "a later one"} {
		order = append(order, trouble(state))
	}
	require.Equal(t, []int{0, 1, 2, 3, 4, 5, 6, 7}, order)
	kept := cut(s.LeftOff, "x", []int{4, 1, 5, 3}, 2, func(a, b int) int { return b - a })
	require.Equal(t, []int{4, 5}, kept, "in the order in which they stood")
	cut(s.LeftOff, "x", []int{1, 2, 3}, 1, nil)
	require.Equal(t, 2+2, s.LeftOff["x"], "what several lists left off is added up")
	require.Equal(t, []int{1, 2}, cut(map[string]int{}, "x", []int{1, 2}, 2, nil), "as many as the limit")
}

// Lists that are shown as one share its rows: one that needs less leaves them to the next, each has one at least.
func TestBudget_SharesRows(t *testing.T) {
	for _, test := range []struct {
		rows int
		has  []int
		want []int
	}{
		{10, []int{9, 9}, []int{5, 5}}, {10, []int{1, 20}, []int{5, 9}}, {1, []int{9, 9, 9}, []int{1, 1, 1}}, {9, []int{0, 0, 9}, []int{3, 4, 9}},
	} {
		b, got := budget{test.rows, len(test.has)}, []int(nil)
		for _, has := range test.has {
			got = append(got, b.next(has))
		}
		require.Equal(t, test.want, got, test)
	}
}

// counting is an outbox that says what a test wants.
type counting struct{ stats store.OutboxStats }

func (c *counting) Stats() store.OutboxStats { return c.stats }

// Readiness names each reason once, in an order of its own; an outbox that publishers share is shown once.
func TestGather_NamesEachOnce(t *testing.T) {
	reasons := &counting{store.OutboxStats{Name: "one", NotReady: []string{"z", "a", "z"}, Err: "not this"}}
	failed := &counting{store.OutboxStats{Name: "two", Err: "no space"}}
	m, err := New(Config{Outboxes: map[string]Outbox{"b": reasons, "a": failed, "c": reasons}})
	require.NoError(t, err)
	defer func() { require.NoError(t, m.Close()) }()
	s := m.collect(maxLimit)
	require.False(t, s.Ready)
	require.Equal(t, []string{"outbox a: no space", "outbox b: a", "outbox b: z", "outbox c: a", "outbox c: z"}, s.NotReady)
	require.Equal(t, []string{"a two", "b one"}, []string{s.Outboxes[0].Source + " " + s.Outboxes[0].Name, s.Outboxes[1].Source + " " + s.Outboxes[1].Name})
	require.Len(t, s.Outboxes, 2)
}

// What rates are made of is told apart by its source and address: none counts for another.
func TestCounters_AreOfTheirSources(t *testing.T) {
	s := snapshot{
		addresses: []Address{
			{"a", buffstreams.AddressStats{Address: "h:1", Sent: 1, Settled: 2, Pending: 99}}, {"b", buffstreams.AddressStats{Address: "h:1", Sent: 3}},
			{"a", buffstreams.AddressStats{Address: "h:2", Sent: 4}},
		},
		listeners: []Listener{{"a", buffstreams.ListenerStats{Bound: "h:1", Received: 5, Topics: []buffstreams.TopicStats{
			{Groups: []buffstreams.GroupStats{{Settled: 6}, {Settled: 7}}}, {Groups: []buffstreams.GroupStats{{Settled: 8}}},
		}}}},
	}
	require.Equal(t, map[string]counters{
		"to a h:1": {sent: 1, settled: 2}, "to b h:1": {sent: 3}, "to a h:2": {sent: 4}, "at a h:1": {received: 5, handled: 21},
	}, s.counters())
	since := time.Now()
	same := func(a, b buffstreams.AddressStats) bool { return sameAddress(&a, &b) }
	require.True(t, same(buffstreams.AddressStats{Since: since, Connects: 1}, buffstreams.AddressStats{Since: since}))
	require.True(t, same(buffstreams.AddressStats{Since: since, Connects: 1, Failures: 2}, buffstreams.AddressStats{Connects: 1, Failures: 2}))
	require.False(t, same(buffstreams.AddressStats{Since: since, Connects: 1, Failures: 2}, buffstreams.AddressStats{Connects: 1}))
	require.False(t, same(buffstreams.AddressStats{Since: since, Connects: 1, Failures: 2}, buffstreams.AddressStats{Failures: 2}))
}

// A Monitor samples each two seconds until it is closed, and its uptime counts from New.
func TestMonitor_SamplesUntilClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, err := New(Config{Outboxes: map[string]Outbox{"a": &counting{}}})
		require.NoError(t, err)
		require.Equal(t, DefaultStuckAfter, m.cfg.StuckAfter)
		time.Sleep(7 * time.Second)
		ask := func(path string) *httptest.ResponseRecorder {
			r := httptest.NewRequest(http.MethodGet, path, http.NoBody)
			r.RemoteAddr, r.Host = "127.0.0.1:1", "localhost"
			w := httptest.NewRecorder()
			m.ServeHTTP(w, r)
			return w
		}
		var s Stats
		require.NoError(t, json.Unmarshal(ask("/stats?limit=1000000").Body.Bytes(), &s))
		require.Equal(t, []any{7.0, 2.0, []float64{0, 0, 0}, "BuffStreams"}, []any{s.UptimeSeconds, s.Rates.IntervalSeconds, s.Rates.Sent, s.Title})
		require.Equal(t, http.StatusBadRequest, ask("/stats?limit=1000001").Code)
		require.NoError(t, m.Close())
		time.Sleep(time.Minute)
		require.Len(t, m.history.rates().Sent, 3)
		require.NoError(t, m.Close())
	})
	_, err := New(Config{Outboxes: map[string]Outbox{"a": &counting{}}, StuckAfter: -1})
	require.ErrorContains(t, err, "StuckAfter")
}

// A message is old from StuckAfter on, to the moment.
func TestStuck_FromWhenOn(t *testing.T) {
	now := time.Now()
	m := &Monitor{cfg: Config{StuckAfter: 30 * time.Second}}
	for name, test := range map[string]struct {
		of    func(since time.Time) snapshot
		after time.Duration
	}{
		"address": {func(at time.Time) snapshot {
			return address(buffstreams.AddressStats{State: "ready", OldestUnsettled: at})
		}, 30 * time.Second},
		"connecting": {func(at time.Time) snapshot { return address(buffstreams.AddressStats{State: "connecting", Since: at}) }, connectingLong},
		"group":      {func(at time.Time) snapshot { return group(buffstreams.GroupStats{OldestUnsettled: at}) }, 30 * time.Second},
		"disk": {func(at time.Time) snapshot {
			return outbox(store.OutboxStats{Delivering: true, WritingSince: at}, store.DestinationStats{})
		}, slowDisk},
	} {
		for late, found := range map[time.Duration]int{-time.Nanosecond: 0, 0: 1} {
			s := test.of(now.Add(-test.after - late))
			s.at = now
			require.Len(t, m.stuck(s), found, name)
		}
	}
	for lag, found := range map[int]int{9: 0, 10: 1} {
		require.Len(t, m.stuck(group(buffstreams.GroupStats{Lag: lag})), found)
	}
	for bytes, found := range map[int64]int{79: 0, 80: 1} {
		require.Len(t, m.stuck(outbox(store.OutboxStats{Delivering: true}, store.DestinationStats{Bytes: bytes})), found)
	}
}
