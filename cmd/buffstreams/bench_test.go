package main

import (
	"encoding/csv"
	"encoding/json"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

type figures struct {
	Messages, Bytes int64
	Seconds, Rate   float64
	ClientRates     *struct{ Min, Avg, Max, StdDev float64 } `json:"client_rates"`
	Durations       *struct {
		Count  int64
		P50    float64 `json:"p50_ms"`
		P99999 float64 `json:"p99_999_ms"`
		Max    float64 `json:"max_ms"`
	}
	ByClient []struct{ Messages int64 } `json:"rate_by_client"`
}

type benchReport struct {
	Version          int
	Mode, Confirm    string
	WarmUp           int64 `json:"warmup_messages"`
	Publish, Receive *figures
	Interrupted      bool
}

func parseBench(t *testing.T, stdout string) (r benchReport) {
	t.Helper()
	require.NoError(t, json.Unmarshal([]byte(stdout), &r), stdout)
	require.Equal(t, 1, r.Version)
	return r
}

func TestBench_BothCountsAlike(t *testing.T) {
	t.Parallel()
	for name, args := range map[string][]string{
		"received": nil,
		"handled":  {"--confirm", "handled", "--batch", "7"},
		"enqueued": {"--confirm", "enqueued", "--size", "0"},
		"outbox":   {"--outbox", t.TempDir()},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			stdout, stderr, code := runCommand(t, "", append([]string{
				"bench", "both", "--count", "5003", "--clients", "3", "--warmup", "1ns", "--json",
			}, args...)...)
			require.Zero(t, code, stderr)
			r := parseBench(t, stdout)
			require.Equal(t, "both", r.Mode)
			require.Equal(t, name, r.Confirm)
			require.GreaterOrEqual(t, r.WarmUp, int64(3), "each client has connected")
			for _, side := range []*figures{r.Publish, r.Receive} {
				require.EqualValues(t, 5003, side.Messages)
				require.Len(t, side.ByClient, 3)
				require.InEpsilon(t, float64(side.Messages)/side.Seconds, side.Rate, 1e-9)
				require.LessOrEqual(t, side.ClientRates.Min, side.ClientRates.Avg)
				require.LessOrEqual(t, side.ClientRates.Avg, side.ClientRates.Max)
			}
			require.Equal(t, r.Publish.Bytes, r.Receive.Bytes)
			require.LessOrEqual(t, r.Publish.Durations.P50, r.Publish.Durations.Max)
		})
	}
}

// What bench says it published is what another process counts: lines of sub, without those of the warm-up.
func TestBench_PubAgreesWithAnOutsideCount(t *testing.T) {
	t.Parallel()
	lines, err := os.CreateTemp(t.TempDir(), "lines")
	require.NoError(t, err)
	sub, at := startSub(t, lines, anyPort+"/t", "--json")
	require.NoError(t, lines.Close())
	stdout, stderr, code := runCommand(t, "", "bench", "pub", at+"/t", "--duration", "500ms", "--warmup", "100ms", "--json", "--confirm", "handled")
	require.Zero(t, code, stderr)
	r := parseBench(t, stdout)
	require.Nil(t, r.Receive)
	sub.signal(os.Interrupt)
	_, code = sub.wait()
	require.Zero(t, code)
	text, err := os.ReadFile(lines.Name())
	require.NoError(t, err)
	warm := int64(strings.Count(string(text), "buffstreams_bench_warmup"))
	require.Equal(t, r.WarmUp, warm)
	require.Equal(t, r.Publish.Messages, int64(strings.Count(string(text), "\n"))-warm)
}

func TestBench_SubCountsWithoutTheWarmUp(t *testing.T) {
	t.Parallel()
	sub := start(t, nil, "bench", "sub", anyPort+"/t", "--count", "2000", "--clients", "2", "--json")
	at := sub.awaitLine("listening at ")
	_, stderr, code := runCommand(t, "", "bench", "pub", at, "--count", "2000", "--warmup", "50ms", "--json", "--confirm", "handled")
	require.Zero(t, code, stderr)
	stdout, code := sub.wait()
	require.Zero(t, code, sub.stderr.String())
	r := parseBench(t, stdout)
	require.Nil(t, r.Publish)
	require.EqualValues(t, 2000, r.Receive.Messages)
	require.Nil(t, r.Receive.Durations, "the publisher's clock is another")
}

func TestBench_CSV(t *testing.T) {
	t.Parallel()
	stdout, _, code := runCommand(t, "", "bench", "both", "--count", "100", "--clients", "2", "--warmup", "0s", "--csv")
	require.Zero(t, code)
	rows, err := csv.NewReader(strings.NewReader(stdout)).ReadAll()
	require.NoError(t, err)
	require.Len(t, rows, 1+2*3)
	require.Equal(t, []string{"side", "client", "messages", "bytes", "seconds", "rate"}, rows[0][:6])
	sum := 0
	for _, row := range rows[1:3] {
		n, err := strconv.Atoi(row[2])
		require.NoError(t, err)
		sum += n
	}
	require.Equal(t, []string{"publish", "all", strconv.Itoa(sum)}, rows[3][:3])
	require.Equal(t, 100, sum)
}

func TestBench_InterruptedReports(t *testing.T) {
	t.Parallel()
	p := start(t, nil, "bench", "both", "--duration", "1h", "--warmup", "0s", "--json")
	p.awaitLine("listening at ")
	p.signal(os.Interrupt)
	stdout, code := p.wait()
	require.Equal(t, exitInterrupted, code, p.stderr.String())
	r := parseBench(t, stdout)
	require.True(t, r.Interrupted)
	require.Equal(t, r.Publish.Messages, r.Receive.Messages)
}

func TestBench_Errors(t *testing.T) {
	t.Parallel()
	nobody := freeAddress(t)
	for name, test := range map[string]struct {
		args  []string
		parts []string
	}{
		"nobody listens":  {[]string{"pub", nobody, "--timeout", "300ms", "--warmup", "0s", "--count", "1"}, []string{"timed out"}},
		"several clients": {[]string{"pub", nobody, "--timeout", "300ms", "--warmup", "0s", "--clients", "3"}, []string{"3 of 3 clients"}},
		"no client":       {[]string{"both", "--clients", "0"}, []string{"--clients"}},
		"no batch":        {[]string{"both", "--batch", "0"}, []string{"--batch"}},
		"negative size":   {[]string{"both", "--size", "-1"}, []string{"--size"}},
		"no end":          {[]string{"both", "--duration", "0s"}, []string{"--duration"}},
		"two formats":     {[]string{"both", "--json", "--csv"}, []string{"--json and --csv"}},
		"unknown level":   {[]string{"both", "--confirm", "perhaps"}, []string{"perhaps"}},
		"an outbox":       {[]string{"pub", nobody, "--timeout", "1s", "--warmup", "0s", "--count", "1", "--outbox", t.TempDir()}, []string{"within 1s", "refused"}},
		"bad topic":       {[]string{"sub", "orders"}, []string{"bad address"}},
		"no certificate":  {[]string{"both", "tls://127.0.0.1:0/x"}, []string{"--tls-cert"}},
		"for everybody":   {[]string{"sub", "0.0.0.0:0/x"}, []string{"--insecure"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, stderr, code := runCommand(t, "", append([]string{"bench"}, test.args...)...)
			require.Equal(t, 1, code)
			requireOneLine(t, stderr, test.parts...)
		})
	}
}

type latencyReport struct {
	Version, Size  int
	Path           string
	Sent, Received int64
	Rate           float64
	Latency, Late  *struct {
		Count  int64
		P50    float64 `json:"p50_ms"`
		P99999 float64 `json:"p99_999_ms"`
		Max    float64 `json:"max_ms"`
	}
	Points []struct{ Percentile, MS float64 }
}

func TestLatency_OneWay(t *testing.T) {
	t.Parallel()
	stdout, stderr, code := runCommand(t, "", "latency", "--rate", "1000", "--duration", "500ms", "--warmup", "100ms", "--json")
	require.Zero(t, code, stderr)
	var r latencyReport
	require.NoError(t, json.Unmarshal([]byte(stdout), &r), stdout)
	require.Equal(t, "one way", r.Path)
	require.EqualValues(t, 500, r.Sent)
	require.EqualValues(t, 500, r.Received)
	require.EqualValues(t, 500, r.Latency.Count)
	require.Positive(t, r.Latency.P50)
	require.LessOrEqual(t, r.Late.P50, r.Latency.P50, "the latency is from when a message was due")
	require.LessOrEqual(t, r.Latency.P99999, r.Latency.Max)
	require.NotEmpty(t, r.Points)
}

func TestLatency_RoundTripThroughAReplier(t *testing.T) {
	t.Parallel()
	reply := start(t, nil, "reply", anyPort+"/echo", "--echo")
	at := reply.awaitLine("listening at ")
	stdout, stderr, code := runCommand(t, "", "latency", at+"/echo", "--rate", "200", "--duration", "500ms", "--warmup", "100ms", "--plot")
	require.Zero(t, code, stderr)
	require.Contains(t, stdout, "round trip, 100 of 100 messages")
	require.Contains(t, stdout, "99.999")
	require.Contains(t, stdout, "latency by percentile")
	reply.signal(os.Interrupt)
	_, code = reply.wait()
	require.Zero(t, code, reply.stderr.String())
}

// A stall counts for every message that it held up: when the replier gets no more, the window is full after a third of the messages,
// and the others are sent when that is over. They were due before, and the percentiles say so.
func TestLatency_HidesNoStall(t *testing.T) {
	t.Parallel()
	reply := start(t, nil, "reply", anyPort+"/echo", "--echo")
	const size = 262_144
	at := stalling(t, reply.awaitLine("listening at "), size/2, 1600*time.Millisecond) // from the first message on
	stdout, stderr, code := runCommand(t, "", "latency", at+"/echo", "--rate", "100", "--duration", "2s", "--warmup", "0s",
		"--size", strconv.Itoa(size), "--json")
	require.Zero(t, code, stderr)
	var r latencyReport
	require.NoError(t, json.Unmarshal([]byte(stdout), &r), stdout)
	require.EqualValues(t, 200, r.Received)
	require.Greater(t, r.Latency.P50, 400.0, "half of the messages were due while the peer stood still")
	require.Greater(t, r.Latency.Max, 900.0)
}

func TestLatency_Errors(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{
		{"--rate", "0"}, {"--rate", "-1"}, {"--duration", "0s"}, {"--size", "7"}, {"--warmup", "-1s"}, {"--rate", "1", "--duration", "10ms"}, {"orders"},
	} {
		_, stderr, code := runCommand(t, "", append([]string{"latency"}, args...)...)
		require.Equal(t, 1, code, args)
		requireOneLine(t, stderr)
	}
	_, stderr, code := runCommand(t, "", "latency", freeAddress(t), "--duration", "100ms", "--warmup", "0s", "--timeout", "2s")
	require.Equal(t, 1, code)
	requireOneLine(t, stderr, "100 of 100 messages did not come", "refused")
	require.NotContains(t, stderr, "undelivered")
	_, silent := startSub(t, nil, anyPort+"/t")
	_, stderr, code = runCommand(t, "", "latency", silent+"/t", "--duration", "100ms", "--warmup", "0s", "--timeout", "2s")
	require.Equal(t, 1, code)
	requireOneLine(t, stderr, "did not come within 2s", "is a 'buffstreams reply' there?")
}
