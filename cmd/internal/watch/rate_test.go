package watch

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/monitor"
	"github.com/buffstreams/watermill-buffstreams/store"
)

// at is a process that has sent and settled n messages, n seconds after it began.
func at(n uint64) *monitor.Stats {
	now := time.Unix(1000, 0).Add(time.Duration(n) * time.Second)
	address := func(source, name string, sent uint64) monitor.Address {
		return monitor.Address{Source: source, AddressStats: buffstreams.AddressStats{
			Address: name, State: "ready", Since: now.Add(-time.Minute), Pending: 3, Sent: sent, Settled: 2 * n,
		}}
	}
	group := func(name string, settled uint64) buffstreams.GroupStats {
		return buffstreams.GroupStats{Group: name, Lag: 4, InFlight: 5, Members: 6, Settled: settled, OldestUnsettled: now.Add(-90 * time.Second)}
	}
	return &monitor.Stats{
		At: now, Title: "T\x1b", Ready: n > 0, NotReady: []string{"why"}, Stuck: []monitor.Stuck{{What: "group", Name: "g", Why: "w", Critical: true}, {What: "topic", Name: "t", Why: "v"}},
		Addresses: []monitor.Address{address("a", "h:1", 10*n), address("b", "h:1", 1000*n)},
		Listeners: []monitor.Listener{{Source: "a", ListenerStats: buffstreams.ListenerStats{Bound: "l:1", State: "open", Topics: []buffstreams.TopicStats{
			{Topic: "t", Groups: []buffstreams.GroupStats{group("g", 20*n), group("f", 30*n)}}, {Topic: "u v", Groups: []buffstreams.GroupStats{group("g", 40*n)}},
		}}}},
		Outboxes: []monitor.OutboxStats{{Source: "p", OutboxStats: store.OutboxStats{Name: "/box", Destinations: []store.DestinationStats{{Name: "h:1", Pending: 7, Bytes: 8}}}}},
	}
}

// rows are the lines of a table that begin with a word, in single spaces.
func rows(t *testing.T, now, before *monitor.Stats, with string) (found []string) {
	t.Helper()
	var b strings.Builder
	require.NoError(t, write(&b, now, before))
	for line := range strings.Lines(b.String()) {
		if strings.HasPrefix(line, with) {
			found = append(found, strings.Join(strings.Fields(line), " "))
		}
	}
	return found
}

// A row has the figures of its own address or group; rates are over the time between two tables, and of the same row.
func TestTop_RatesAreOfTheirRows(t *testing.T) {
	require.Equal(t, []string{"h:1 a ready 1m0s 3 - 50 10 10 0 -", "h:1 b ready 1m0s 3 - 5000 1000 10 0 -"}, rows(t, at(5), at(3), "h:1"))
	require.Equal(t, []string{"t g l:1 open 4 5 1m30s 6 100 20 0", "t f l:1 open 4 5 1m30s 6 150 30 0"}, rows(t, at(5), at(3), "t "))
	require.Equal(t, []string{`"u v" g l:1 open 4 5 1m30s 6 200 40 0`}, rows(t, at(5), at(3), `"u v"`))
	require.Equal(t, []string{"/box p h:1 7 8 -"}, rows(t, at(5), at(3), "/box"))
	require.Equal(t, []string{"h:1 a ready 1m0s 3 - 50 - 10 0 -", "h:1 b ready 1m0s 3 - 5000 - 10 0 -"}, rows(t, at(5), nil, "h:1"), "the first table")
	require.Equal(t, "h:1 a ready 1m0s 3 - 30 - 6 0 -", rows(t, at(3), at(5), "h:1")[0], "a counter that has begun anew")
	require.Equal(t, "h:1 a ready 1m0s 3 - 30 - 6 0 -", rows(t, at(3), at(3), "h:1")[0], "no time has passed")
	require.Equal(t, []string{"CRITICAL group g: w"}, rows(t, at(1), nil, "CRITICAL"))
	require.Equal(t, []string{"WARNING topic t: v"}, rows(t, at(1), nil, "WARNING"))
	require.Equal(t, []string{"T? 1970-01-01T00:16:41Z ready"}, rows(t, at(1), nil, "T?"))
	require.Equal(t, []string{"T? 1970-01-01T00:16:40Z not ready: why"}, rows(t, at(0), nil, "T?"))
}
