package dashboards

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/prometheus/prometheus/util/teststorage"
	"github.com/stretchr/testify/require"
)

type promqltestStorage = teststorage.TestStorage

// dashboard is what the test reads of Grafana's file.
type dashboard struct {
	Title  string
	Panels []struct {
		Title   string
		Type    string
		GridPos struct{ X, Y, W, H int }
		Targets []struct{ Expr string }
	}
	Templating struct {
		List []struct{ Name, Type string }
	}
}

func readDashboard(t *testing.T) (d dashboard) {
	t.Helper()
	require.NoError(t, json.Unmarshal(readFile(t, "../../../metrics/grafana/buffstreams.json"), &d))
	return d
}

// withVariables is a query as Grafana sends it.
func withVariables(expr string) string {
	return strings.NewReplacer("$__rate_interval", "1m", "$job", ".*", "$instance", ".*").Replace(expr)
}

// Every query of the dashboard is one, names only metrics and labels that a real run has, and gives something.
func TestDashboard_EveryQueryFitsARun(t *testing.T) {
	r := newRun(t)
	loaded := r.load()
	storage := promqltest.LoadedStorage(t, loaded)
	defer func() { _ = storage.Close() }()
	queries := 0
	for _, p := range readDashboard(t).Panels {
		for _, target := range p.Targets {
			queries++
			query := withVariables(target.Expr)
			expr, err := parser.ParseExpr(query)
			require.NoError(t, err, "panel %q", p.Title)
			for _, selectors := range parser.ExtractSelectors(expr) {
				require.NotEmpty(t, evaluateIn(t, storage, selector(selectors)), "panel %q: a run has no %s", p.Title, selector(selectors))
			}
			require.NotEmpty(t, evaluateIn(t, storage, query), "panel %q: %s gives nothing", p.Title, query)
		}
	}
	require.Greater(t, queries, 30)
}

// selector is a query for the series that matchers select.
func selector(matchers []*labels.Matcher) string {
	var all []string
	for _, m := range matchers {
		all = append(all, m.String())
	}
	return "{" + strings.Join(all, ",") + "}"
}

// Panels do not overlap, and each has a query or is a row.
func TestDashboard_PanelsHaveTheirPlace(t *testing.T) {
	taken := map[[2]int]string{}
	for _, p := range readDashboard(t).Panels {
		require.Equal(t, p.Type == "row", len(p.Targets) == 0, p.Title)
		require.LessOrEqual(t, p.GridPos.X+p.GridPos.W, 24, p.Title)
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				require.Empty(t, taken[[2]int{x, y}], p.Title)
				taken[[2]int{x, y}] = p.Title
			}
		}
	}
}
