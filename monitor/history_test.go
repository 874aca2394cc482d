package monitor

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/store"
)

func TestHistory_Rates(t *testing.T) {
	var h history
	now := time.Now()
	add := func(seconds int, c map[string]counters) { h.add(now.Add(time.Duration(seconds)*time.Second), c) }
	add(0, map[string]counters{"a": {sent: 100}})
	require.Empty(t, h.rates().Sent, "what was before is no rate")
	add(2, map[string]counters{"a": {sent: 110, settled: 4}, "b": {received: 8}})
	add(4, map[string]counters{"a": {sent: 6}, "b": {received: 8, handled: 2}}) // a was forgotten, and is another one
	add(6, map[string]counters{})
	r := h.rates()
	require.Equal(t, []float64{5, 3, 0}, r.Sent)
	require.Equal(t, []float64{2, 0, 0}, r.Settled)
	require.Equal(t, []float64{4, 0, 0}, r.Received)
	require.Equal(t, []float64{0, 1, 0}, r.Handled)
	for i := range 2 * samples {
		add(8+2*i, nil)
	}
	require.Len(t, h.rates().Sent, samples)
	require.LessOrEqual(t, cap(h.points), 2*samples, "it does not grow for ever")
}

func TestStuck_SaysWhatAndWhy(t *testing.T) {
	now := time.Now()
	old, fresh := now.Add(-time.Minute), now.Add(-time.Second)
	m := &Monitor{cfg: Config{StuckAfter: 30 * time.Second}}
	for name, test := range map[string]struct {
		s    snapshot
		want []string // parts of the only finding; none: there is none
	}{
		"ready":                      {address(buffstreams.AddressStats{State: "ready", Pending: 3, OldestUnsettled: fresh}), nil},
		"idle":                       {address(buffstreams.AddressStats{State: "idle", LastError: "reset"}), nil},
		"failed":                     {address(buffstreams.AddressStats{State: "failed", LastError: "reset", Pending: 1, Since: old}), []string{"critical", "main to h:1", "reset", "1 message waits"}},
		"gone":                       {address(buffstreams.AddressStats{State: "gone", Pending: 2}), []string{"critical", "nothing listens", "2 messages wait"}},
		"silent":                     {address(buffstreams.AddressStats{State: "silent", Pending: 2, Since: fresh}), []string{"critical", "nothing was heard", "2 messages wait"}},
		"a state of a later version": {address(buffstreams.AddressStats{State: "asleep", OldestUnsettled: old, Pending: 2}), []string{"critical", "asleep for long"}},
		"draining for long":          {address(buffstreams.AddressStats{State: "draining", OldestUnsettled: old, Pending: 2}), []string{"critical", "closes"}},
		"failed, but nothing waits":  {address(buffstreams.AddressStats{State: "failed", LastError: "reset"}), []string{"warning", "no message waits"}},
		"connecting":                 {address(buffstreams.AddressStats{State: "connecting", Since: fresh}), nil},
		"connecting long":            {address(buffstreams.AddressStats{State: "connecting", Since: old, Pending: 2}), []string{"critical", "connecting for long", "2 messages wait"}},
		"draining":                   {address(buffstreams.AddressStats{State: "draining"}), []string{"warning", "closes"}},
		"nothing settled":            {address(buffstreams.AddressStats{State: "ready", OldestUnsettled: old, Pending: 2}), []string{"critical", "not settled"}},
		"no room":                    {address(buffstreams.AddressStats{State: "ready", Streams: []buffstreams.StreamStats{{Waiting: 2}}}), []string{"critical", "room in the window: 2"}},
		"held":                       {topic("held", buffstreams.TopicStats{}), []string{"critical", "Ready channel"}},
		"closing":                    {topic("draining", buffstreams.TopicStats{}), []string{"warning", "closing"}},
		"missing groups":             {topic("open", buffstreams.TopicStats{Missing: []string{"a", "b"}}), []string{"critical", "main at h:1/orders", "a, b"}},
		"shortage":                   {topic("open", buffstreams.TopicStats{Shortage: "no memory"}), []string{"critical", "no memory"}},
		"a group at work":            {group(buffstreams.GroupStats{Lag: 5, OldestUnsettled: fresh}), nil},
		"a window behind":            {group(buffstreams.GroupStats{Group: "g", Lag: 10, OldestUnsettled: fresh}), []string{"critical", "group g", "whole window", "no subscription"}},
		"old message":                {group(buffstreams.GroupStats{Lag: 5, OldestUnsettled: old, Members: 1, InFlight: 4}), []string{"critical", "group (none)", "have 4"}},
		"stuck key":                  {group(buffstreams.GroupStats{StuckKeys: []buffstreams.KeyStats{{Key: "k\n", Waiting: 7, Oldest: old}}}), []string{"critical", `key "k\n"`, "7"}},
		"outbox":                     {outbox(store.OutboxStats{Delivering: true, Pending: 3}, store.DestinationStats{Bytes: 10}), nil},
		"outbox failed":              {outbox(store.OutboxStats{Err: "no space"}, store.DestinationStats{}), []string{"critical", "no space"}},
		"outbox idle":                {outbox(store.OutboxStats{Pending: 3}, store.DestinationStats{}), []string{"critical", "no publisher"}},
		"outbox nearly full":         {outbox(store.OutboxStats{Delivering: true}, store.DestinationStats{Bytes: 80}), []string{"warning", "80 %"}},
		"outbox full":                {outbox(store.OutboxStats{Delivering: true}, store.DestinationStats{Bytes: 100}), []string{"critical", "100 %"}},
		"outbox old":                 {outbox(store.OutboxStats{Delivering: true}, store.DestinationStats{OldestUnsettled: old}), []string{"critical", "not settled"}},
	} {
		t.Run(name, func(t *testing.T) {
			test.s.at = now
			found := m.stuck(test.s)
			if test.want == nil {
				require.Empty(t, found)
				return
			}
			require.Len(t, found, 1)
			require.Equal(t, test.want[0] == "critical", found[0].Critical)
			for _, part := range test.want[1:] {
				require.Contains(t, found[0].Name+": "+found[0].Why, part)
			}
		})
	}
}

func address(a buffstreams.AddressStats) snapshot {
	a.Address = "h:1"
	return snapshot{addresses: []Address{{"main", a}}}
}

func topic(state string, t buffstreams.TopicStats) snapshot {
	t.Topic, t.Window = "orders", 10
	return snapshot{listeners: []Listener{{"main", buffstreams.ListenerStats{Bound: "h:1", State: state, Topics: []buffstreams.TopicStats{t}}}}}
}

func group(g buffstreams.GroupStats) snapshot {
	return topic("open", buffstreams.TopicStats{Groups: []buffstreams.GroupStats{g}})
}

func outbox(o store.OutboxStats, d store.DestinationStats) snapshot {
	o.Name, o.QuotaBytes, d.Name = "/box", 100, "h:1"
	o.Destinations = []store.DestinationStats{d}
	return snapshot{outboxes: []OutboxStats{{"main", o}}}
}

// The worst comes first, and there is a bound.
func TestStuck_OrderAndBound(t *testing.T) {
	m := &Monitor{cfg: Config{StuckAfter: 30 * time.Second}}
	s := snapshot{at: time.Now()}
	for i := range 2 * maxStuck {
		a := buffstreams.AddressStats{Address: "h:1", State: "failed", Since: s.at.Add(-time.Duration(i) * time.Second), Pending: i % 2}
		s.addresses = append(s.addresses, Address{"main", a})
	}
	found := m.stuck(s)
	require.Len(t, found, maxStuck)
	require.True(t, found[0].Critical)
	require.True(t, found[0].Since.Before(found[1].Since))
	require.True(t, found[maxStuck-1].Critical)
}
