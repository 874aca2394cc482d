package dashboards

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/stretchr/testify/require"
)

func readRules(t *testing.T) []rulefmt.Rule {
	t.Helper()
	groups, errs := rulefmt.ParseFile("../../../metrics/prometheus/buffstreams.rules.yml", false, model.UTF8Validation)
	require.Empty(t, errs)
	var rules []rulefmt.Rule
	for _, g := range groups.Groups {
		rules = append(rules, g.Rules...)
	}
	return rules
}

// Every metric that an alert names is one of a real run, and docs/operating.md says what to do about each alert.
func TestAlerts_FitARunAndTheDocs(t *testing.T) {
	storage := promqltest.LoadedStorage(t, newRun(t).load())
	defer func() { _ = storage.Close() }()
	docs := string(readFile(t, "../../../docs/operating.md"))
	for _, rule := range readRules(t) {
		expr, err := parser.ParseExpr(rule.Expr)
		require.NoError(t, err)
		for _, selectors := range parser.ExtractSelectors(expr) {
			require.NotEmpty(t, evaluateIn(t, storage, selector(selectors)), "%s: a run has no %s", rule.Alert, selector(selectors))
		}
		require.Contains(t, docs, "### "+rule.Alert+"\n")
		require.Equal(t, "docs/operating.md#"+strings.ToLower(rule.Alert), rule.Annotations["runbook"])
		require.NotEmpty(t, rule.Annotations["summary"])
		require.NotEmpty(t, rule.Labels["severity"])
	}
}

// series is a line of what is loaded: values for half an hour.
func series(name, labels, values string) string {
	if labels != "" {
		labels = "," + labels
	}
	return fmt.Sprintf("  buffstreams_%s{job=\"j\",instance=\"i\"%s} %s\n", name, labels, values)
}

// quiet is a system that is well: busy, with a connection lost now and then.
func quiet() map[string]string {
	return map[string]string{
		"address_oldest_unsettled_seconds": series("address_oldest_unsettled_seconds", `address="a"`, "0.2+0x60"),
		"outbox_oldest_unsettled_seconds":  series("outbox_oldest_unsettled_seconds", `outbox="o",destination="a"`, "0.2+0x60"),
		"group_lag_messages":               series("group_lag_messages", `listener="l",topic="t",group="g"`, "16000+0x60"),
		"topic_window_messages":            series("topic_window_messages", `listener="l",topic="t"`, "16384+0x60"),
		"topic_short":                      series("topic_short", `listener="l",topic="t"`, "1+0x60"),
		"group_oldest_unsettled_seconds":   series("group_oldest_unsettled_seconds", `listener="l",topic="t",group="g"`, "0.1+0x60"),
		"outbox_pending_bytes":             series("outbox_pending_bytes", `outbox="o",destination="a"`, "500+0x60"),
		"outbox_quota_bytes":               series("outbox_quota_bytes", `outbox="o"`, "1000+0x60"),
		"outbox_failed":                    series("outbox_failed", `outbox="o"`, "0+0x60"),
		"outbox_writing_seconds":           series("outbox_writing_seconds", `outbox="o"`, "0.01+0x60"),
		"connections_lost_total":           series("connections_lost_total", `address="a"`, "0+0x30 1+0x29"),
		"connect_failures_total":           series("connect_failures_total", `address="a",reason="certificate"`, "0+0x30 1+0x29"),
		"resolved_total": series("resolved_total", `topic="t",result="failed"`, "0+1x60") +
			series("resolved_total", `topic="t",result="ok"`, "0+1x60"),
		"accepted_lost_total":    series("accepted_lost_total", `listener="l"`, "0+0x30 1+0x29"),
		"listener_peers":         series("listener_peers", `listener="l"`, "3+0x60"),
		"moved_may_repeat_total": series("moved_may_repeat_total", `topic="t"`, "0+0x60"),
		"dead_letters_total":     series("dead_letters_total", `topic="t",group="g"`, "5+0x60"),
		"rejected_total":         series("rejected_total", `address="a",topic="t"`, "5+0x60"),
	}
}

// Each trouble fires its own alert, and no other; a busy system that is well fires none.
func TestAlerts_FireOnTheirOwnTrouble(t *testing.T) {
	troubles := []struct {
		name, metric, series, alert string
	}{
		{"a system that is well", "", "", ""},
		{"a peer that is away", "address_oldest_unsettled_seconds",
			series("address_oldest_unsettled_seconds", `address="a"`, "0+30x60"), "BuffstreamsOldestUnsettled"},
		{"a destination of an outbox that is away", "outbox_oldest_unsettled_seconds",
			series("outbox_oldest_unsettled_seconds", `outbox="o",destination="a"`, "0+30x60"), "BuffstreamsOldestUnsettled"},
		{"a group that is stuck", "group_oldest_unsettled_seconds",
			series("group_oldest_unsettled_seconds", `listener="l",topic="t",group="g"`, "0+30x60"), "BuffstreamsGroupBehind"},
		{"an outbox that fills up", "outbox_pending_bytes",
			series("outbox_pending_bytes", `outbox="o",destination="a"`, "0+20x60"), ""},
		{"an outbox that is nearly full", "outbox_pending_bytes",
			series("outbox_pending_bytes", `outbox="o",destination="a"`, "0+24x60"), "BuffstreamsOutboxNearQuota"},
		{"a disk that fails", "outbox_failed", series("outbox_failed", `outbox="o"`, "0x20 1+0x39"), "BuffstreamsOutboxFailed"},
		{"a disk that hangs", "outbox_writing_seconds", series("outbox_writing_seconds", `outbox="o"`, "0x20 0+30x39"), "BuffstreamsOutboxDiskHangs"},
		{"a disk that is slow now and then", "outbox_writing_seconds", series("outbox_writing_seconds", `outbox="o"`, "2+0x60"), ""},
		{"a connection that flaps", "connections_lost_total",
			series("connections_lost_total", `address="a"`, "0+1x60"), "BuffstreamsReconnectStorm"},
		{"a certificate that has expired", "connect_failures_total",
			series("connect_failures_total", `address="a",reason="certificate"`, "0+1x60"), "BuffstreamsPeerNotTrusted"},
		{"a peer that restarts", "connect_failures_total",
			series("connect_failures_total", `address="a",reason="refused"`, "0+1x60"), ""},
		{"a DNS that is down", "resolved_total", series("resolved_total", `topic="t",result="failed"`, "0+1x60") +
			series("resolved_total", `topic="t",result="ok"`, "5+0x60"), "BuffstreamsLookupsFailing"},
		{"peers that come and go", "accepted_lost_total",
			series("accepted_lost_total", `listener="l"`, "0+5x60"), "BuffstreamsReconnectStorm"},
		{"moves from receivers that are gone", "moved_may_repeat_total",
			series("moved_may_repeat_total", `topic="t"`, "0+50x60"), "BuffstreamsDuplicatesAfterMoves"},
		{"a message that poisons", "dead_letters_total",
			series("dead_letters_total", `topic="t",group="g"`, "5+0x30 6+0x29"), "BuffstreamsMessagesFailed"},
		{"messages that a peer refuses", "rejected_total",
			series("rejected_total", `address="a",topic="t"`, "5+0x30 6+0x29"), "BuffstreamsMessagesFailed"},
	}
	rules := readRules(t)
	for _, trouble := range troubles {
		t.Run(trouble.name, func(t *testing.T) {
			state := quiet()
			if trouble.metric != "" {
				require.Contains(t, state, trouble.metric)
				state[trouble.metric] = trouble.series
			}
			loaded := "load 30s\n" + strings.Join(slices.Collect(maps.Values(state)), "")
			var fired []string
			for _, rule := range rules {
				if len(evaluate(t, loaded, rule.Expr)) > 0 {
					fired = append(fired, rule.Alert)
				}
				require.LessOrEqual(t, time.Duration(rule.For), 5*time.Minute)
			}
			if trouble.alert == "" {
				require.Empty(t, fired)
				return
			}
			require.Equal(t, []string{trouble.alert}, fired)
		})
	}
}
