package check

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/monitor"
)

// The line has one meaning for its reader, whatever the text and the labels are.
func TestLine(t *testing.T) {
	r := Result{Check: "lag", State: Warning, Text: "a|b\nc\x7fd", Perf: []Value{
		{Label: "it's", Value: 1.5, Unit: "s", Warn: 0.25, Critical: 1e6}, {Label: "n", Value: 3},
	}}
	require.Equal(t, "BUFFSTREAMS LAG WARNING - a b c d | 'its'=1.5s;0.25;1000000;0 'n'=3;0;0;0", r.Line())
	require.Equal(t, "BUFFSTREAMS LAG OK - x", Result{Check: "lag", Text: "x"}.Line())
	require.Equal(t, []State{0, 1, 2, 3}, []State{OK, Warning, Critical, Unknown}, "exit codes")
	require.Equal(t, "OK WARNING CRITICAL UNKNOWN", fmt.Sprint(OK, Warning, Critical, Unknown))
}

// A limit is reached by its own value; 0 is none, and critical comes first.
func TestLimits(t *testing.T) {
	for _, test := range []struct{ value, warn, critical, want int }{
		{4, 5, 9, 0}, {5, 5, 9, 1}, {8, 5, 9, 1}, {9, 5, 9, 2}, {9, 0, 9, 2}, {8, 0, 9, 0}, {99, 5, 0, 1}, {99, 0, 0, 0}, {0, 0, 0, 0}, {7, 9, 5, 2},
	} {
		require.Equal(t, State(test.want), above(float64(test.value), float64(test.warn), float64(test.critical)), test)
		l := Limits{time.Duration(test.warn) * time.Second, time.Duration(test.critical) * time.Second}
		require.Equal(t, State(test.want), l.of(time.Duration(test.value)*time.Second), test)
	}
	require.Equal(t, Value{"x", 1.5, "s", 2, 3}, Limits{2 * time.Second, 3 * time.Second}.value("x", 1500*time.Millisecond))
}

// What was looked for and is not there is critical, also after its time; an interrupt says nothing.
func TestRun_States(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		interrupted, interrupt := context.WithCancel(t.Context())
		interrupt()
		for _, test := range []struct {
			ctx    context.Context
			r      Result
			err    error
			want   State
			prints string
		}{
			{t.Context(), Result{Text: "fine"}, nil, OK, "OK - fine"}, {t.Context(), Result{Text: "slow", State: Warning}, nil, Warning, "WARNING - slow"},
			{t.Context(), Result{}, errors.New("buffstreams: refused"), Critical, "CRITICAL - refused"},
			{interrupted, Result{Text: "x"}, errors.New("refused"), Unknown, "UNKNOWN - interrupted"}, {interrupted, Result{Text: "fine"}, nil, OK, "OK - fine"},
		} {
			var out bytes.Buffer
			err := Run(test.ctx, &out, "name", time.Second, func(context.Context) (Result, error) { return test.r, test.err })
			require.Equal(t, "BUFFSTREAMS NAME "+test.prints+"\n", out.String())
			var state *StateError
			require.Equal(t, test.want != OK, errors.As(err, &state))
			if state != nil {
				require.Equal(t, test.want, state.State)
			}
		}
		var out bytes.Buffer
		began := time.Now()
		err := Run(t.Context(), &out, "name", 3*time.Second, func(ctx context.Context) (Result, error) {
			<-ctx.Done()
			return Result{}, ctx.Err()
		})
		require.Equal(t, &StateError{Critical}, err)
		require.Equal(t, 3*time.Second, time.Since(began))
		err = Run(t.Context(), closedWriter{}, "name", time.Second, func(context.Context) (Result, error) { return Result{State: Warning}, nil })
		require.ErrorIs(t, err, errClosed, "the line was not written")
	})
}

var errClosed = errors.New("closed")

type closedWriter struct{}

func (closedWriter) Write([]byte) (int, error) { return 0, errClosed }

func statsOf(s monitor.Stats, err error) func(context.Context) (monitor.Stats, error) {
	return func(context.Context) (monitor.Stats, error) { return s, err }
}

// The group that is the furthest behind, and the oldest message of any, decide, of those that are chosen.
func TestLag_TheWorstDecides(t *testing.T) {
	now := time.Unix(1000, 0)
	group := func(name string, lag, age int) buffstreams.GroupStats {
		g := buffstreams.GroupStats{Group: name, Lag: lag}
		if age > 0 {
			g.OldestUnsettled = now.Add(-time.Duration(age) * time.Second)
		}
		return g
	}
	s := monitor.Stats{At: now, Listeners: []monitor.Listener{
		{ListenerStats: buffstreams.ListenerStats{Topics: []buffstreams.TopicStats{
			{Topic: "orders", Groups: []buffstreams.GroupStats{group("a", 10, 5), group("b", 30, 2)}},
			{Topic: "bills", Groups: []buffstreams.GroupStats{group("a", 20, 60)}},
		}}},
		{ListenerStats: buffstreams.ListenerStats{Topics: []buffstreams.TopicStats{{Topic: "quiet", Groups: []buffstreams.GroupStats{group("a", 0, 0)}}}}},
	}}
	for name, test := range map[string]struct {
		o    LagOptions
		want State
		text string
		perf []float64
	}{
		"all":         {LagOptions{}, OK, `4 groups, at most 30 messages behind: topic "orders" group "b"; the oldest message is 1m0s old: topic "bills" group "a"`, []float64{30, 60}},
		"a topic":     {LagOptions{Topic: "orders"}, OK, `2 groups, at most 30 messages behind: topic "orders" group "b"; the oldest message is 5s old: topic "orders" group "a"`, []float64{30, 5}},
		"a group":     {LagOptions{Group: "a"}, OK, `3 groups, at most 20 messages behind: topic "bills" group "a"; the oldest message is 1m0s old: topic "bills" group "a"`, []float64{20, 60}},
		"both":        {LagOptions{Topic: "orders", Group: "a"}, OK, `1 groups, at most 10 messages behind: topic "orders" group "a"; the oldest`, []float64{10, 5}},
		"a quiet one": {LagOptions{Topic: "quiet", Warn: 1, Age: Limits{Warn: 1}}, OK, `1 groups, at most 0 messages behind: topic "quiet" group "a"`, []float64{0, 0}},
		"messages":    {LagOptions{Warn: 30, Critical: 31}, Warning, "at most 30", []float64{30, 60}},
		"many":        {LagOptions{Warn: 1, Critical: 30, Age: Limits{Warn: time.Minute}}, Critical, "at most 30", []float64{30, 60}},
		"an old one":  {LagOptions{Warn: 30, Age: Limits{Warn: time.Second, Critical: time.Minute}}, Critical, "1m0s old", []float64{30, 60}},
	} {
		test.o.Stats = statsOf(s, nil)
		r, err := Lag(t.Context(), test.o)
		require.NoError(t, err, name)
		require.Equal(t, test.want, r.State, name)
		require.Contains(t, r.Text, test.text, name)
		require.Equal(t, test.perf, []float64{r.Perf[0].Value, r.Perf[1].Value}, name)
		require.Equal(t, []float64{float64(test.o.Warn), float64(test.o.Critical)}, []float64{r.Perf[0].Warn, r.Perf[0].Critical}, name)
		require.Equal(t, []float64{test.o.Age.Warn.Seconds(), test.o.Age.Critical.Seconds()}, []float64{r.Perf[1].Warn, r.Perf[1].Critical}, name)
	}
	for _, o := range []LagOptions{{Topic: "other"}, {Group: "other"}, {Topic: "bills", Group: "b"}} {
		o.Stats = statsOf(s, nil)
		_, err := Lag(t.Context(), o)
		require.ErrorContains(t, err, "there is no group of topic")
	}
	_, err := Lag(t.Context(), LagOptions{Stats: statsOf(s, errClosed)})
	require.ErrorIs(t, err, errClosed)
}

// Three are named, and the others counted.
func TestStuckAndReady_NameThree(t *testing.T) {
	for n, want := range map[int]string{1: "a 0: w", 3: "a 0: w; a 1: w; a 2: w", 5: "a 0: w; a 1: w; a 2: w; and 2 more"} {
		for critical := range 2 {
			s := monitor.Stats{}
			for i := range n {
				s.Stuck = append(s.Stuck, monitor.Stuck{What: "a", Name: fmt.Sprint(i), Why: "w", Critical: i < critical})
				s.NotReady = append(s.NotReady, fmt.Sprintf("a %d: w", i))
			}
			r, err := Stuck(t.Context(), MonitorOptions{statsOf(s, nil)})
			require.NoError(t, err)
			require.Equal(t, Warning+State(critical), r.State)
			require.Equal(t, want, r.Text)
			require.Equal(t, []Value{{Label: "critical", Value: float64(critical), Critical: 1}, {Label: "warnings", Value: float64(n - critical), Warn: 1}}, r.Perf)
			r, err = Ready(t.Context(), MonitorOptions{statsOf(s, nil)})
			require.NoError(t, err)
			require.Equal(t, Result{State: Critical, Text: want, Perf: []Value{{Label: "reasons", Value: float64(n), Critical: 1}}}, r)
		}
	}
	for _, look := range []func(context.Context, MonitorOptions) (Result, error){Stuck, Ready} {
		r, err := look(t.Context(), MonitorOptions{statsOf(monitor.Stats{}, nil)})
		require.NoError(t, err)
		require.Equal(t, OK, r.State)
		_, err = look(t.Context(), MonitorOptions{statsOf(monitor.Stats{}, errClosed)})
		require.ErrorIs(t, err, errClosed)
	}
}

func TestDays(t *testing.T) {
	require.Equal(t, []string{"1h0m0s", "47h59m0s", "2 days", "29 days"}, []string{
		days(time.Hour + 20*time.Second), days(48*time.Hour - time.Minute), days(48 * time.Hour), days(30*24*time.Hour - 1),
	})
}
