package bench

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestSpread_IsThatOfAPopulation(t *testing.T) {
	require.Nil(t, spread(nil))
	require.Equal(t, &Spread{Min: 5, Avg: 5, Max: 5}, spread([]float64{5}))
	s := spread([]float64{2, 4, 4, 4, 5, 5, 7, 9}) // the textbook's: mean 5, deviation 2
	require.InDelta(t, 5, s.Avg, 1e-9)
	require.InDelta(t, 2, s.StdDev, 1e-9)
	require.Equal(t, []float64{2, 9}, []float64{s.Min, s.Max})
}

func TestPercentiles_OfAKnownDistribution(t *testing.T) {
	h := newHistogram()
	require.Nil(t, percentiles(h))
	for i := 1; i <= 100_000; i++ {
		record(h, time.Duration(i)*time.Microsecond)
	}
	p := percentiles(h)
	require.EqualValues(t, 100_000, p.Count)
	for want, got := range map[float64]float64{
		0.001: p.Min, 50: p.P50, 90: p.P90, 99: p.P99, 99.9: p.P999, 99.99: p.P9999, 99.999: p.P99999, 100: p.Max,
	} {
		require.InEpsilon(t, want, got, 0.001, "three significant digits")
	}
	require.InEpsilon(t, 50.0005, p.Mean, 0.001)
	require.InEpsilon(t, 100/math.Sqrt(12), p.StdDev, 0.001)
	require.InDelta(t, 99.99, p.Trusted, 1e-9, "ten of 100,000 are beyond it")
}

// What no histogram has room for is its end, and not lost.
func TestPercentiles_CountWhatIsOutOfRange(t *testing.T) {
	h := newHistogram()
	for _, d := range []time.Duration{-time.Second, 0, time.Hour} {
		record(h, d)
	}
	p := percentiles(h)
	require.EqualValues(t, 3, p.Count)
	require.InEpsilon(t, float64(longest/time.Millisecond), p.Max, 0.001)
	require.Zero(t, p.Trusted)
}

// A rate is over the time from the first client's begin to the last one's end, and not a sum of rates.
func TestSummarize_TakesTheWholeTime(t *testing.T) {
	at := func(s int) time.Time { return time.Unix(1000, 0).Add(time.Duration(s) * time.Second) }
	s := summarize([]tally{
		{messages: 100, bytes: 1000, first: at(0), last: at(10)},
		{messages: 300, bytes: 3000, first: at(5), last: at(20)},
		{}, // it got nothing, and its zero time counts for nothing
	}, newHistogram(), []float64{10, 30})
	require.EqualValues(t, 400, s.Messages)
	require.EqualValues(t, 4000, s.Bytes)
	require.InDelta(t, 20, s.Seconds, 1e-9)
	require.InDelta(t, 20, s.Rate, 1e-9)
	require.InDelta(t, 200, s.BytesPerSecond, 1e-9)
	require.InDelta(t, 10, s.ByClient[0].Rate, 1e-9)
	require.InDelta(t, 20, s.ByClient[1].Rate, 1e-9)
	require.InDelta(t, 10, s.Clients.Avg, 1e-9)
	require.InDelta(t, 20, s.PerSecond.Avg, 1e-9)
	require.Nil(t, s.Durations)
	one := summarize([]tally{{messages: 1, first: at(1), last: at(1)}}, newHistogram(), nil)
	require.Zero(t, one.Rate, "no time has passed")
}

func TestReport_MismatchIsAnError(t *testing.T) {
	r := &Report{Publish: &Summary{Messages: 5}, Receive: &Summary{Messages: 5}}
	require.NoError(t, r.compare())
	r.Receive.Messages = 6
	require.ErrorIs(t, r.compare(), ErrMismatch)
}

func TestReport_TextHasEachSide(t *testing.T) {
	h := newHistogram()
	record(h, time.Millisecond)
	r := &Report{
		Topic: "t", Clients: 2, Confirm: "handled", Batch: 7, DrainSeconds: 1.5,
		Publish: &Summary{Messages: 10, Seconds: 2, Rate: 5, Durations: percentiles(h), Clients: spread([]float64{1, 3})},
		Receive: &Summary{Messages: 10, Seconds: 2, Rate: 5},
	}
	var b bytes.Buffer
	require.NoError(t, r.WriteText(&b))
	for _, part := range []string{
		"publish  10 messages in 2.000 s: 5 messages/s", "receive  10 messages", "min 1 | avg 2 | max 3 | stddev 1", "Publish calls of up to 7",
		"the outbox was empty 1.500 s later",
	} {
		require.Contains(t, b.String(), part)
	}
}

func TestShares_DealOutAll(t *testing.T) {
	require.Equal(t, []int{2, 2, 1}, shares(5, 3))
	require.Equal(t, []int{1, 0}, shares(1, 2))
	require.Equal(t, []int{0}, shares(0, 1))
}

func TestFirstOf_SaysHowManyFailed(t *testing.T) {
	refused := errors.New("refused")
	require.NoError(t, firstOf([]error{nil, nil}))
	require.Equal(t, refused, firstOf([]error{nil, refused}))
	err := firstOf([]error{nil, refused, errors.New("other")})
	require.ErrorIs(t, err, refused)
	require.ErrorContains(t, err, "2 of 3 clients")
}

// A latency goes from when a message was due. The warm-up counts as received only, and what is no message of the run not at all.
func TestMeter_CountsFromWhenAMessageWasDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // no time passes here
		l := &meter{base: time.Now().Add(-10 * time.Second), latency: newHistogram(), late: newHistogram()}
		stamp := func(due time.Duration) []byte { return binary.BigEndian.AppendUint64(nil, uint64(due)) }
		l.arrived(stamp(8 * time.Second)) // due two seconds ago, whenever it was sent
		l.arrived(stamp(-1))
		l.arrived([]byte("short"))
		require.EqualValues(t, 1, l.counted)
		require.EqualValues(t, 2, l.received.Load())
		require.InDelta(t, 2000, percentiles(l.latency).Max, 2)
	})
}

// echoes is a path that answers at once, and notes when it was given each message.
type echoes struct {
	l     *meter
	given []time.Time
	stall time.Duration // of the first message
}

func (e *echoes) send(payload []byte) error {
	e.given = append(e.given, time.Now())
	if len(e.given) == 1 {
		time.Sleep(e.stall) // the subject is real time
	}
	e.l.arrived(payload)
	return nil
}

func (*echoes) explain() string { return "" }
func (*echoes) Close() error    { return nil }

// A path that stands still holds up what is due meanwhile, and all of that is in the latencies.
func TestMeter_AStallCountsForAllThatItHoldsUp(t *testing.T) {
	o := &LatencyOptions{Rate: 1000, Duration: 300 * time.Millisecond, Size: stampSize, Timeout: time.Second}
	l := &meter{o: o, base: time.Now(), latency: newHistogram(), late: newHistogram()}
	p := &echoes{l: l, stall: 200 * time.Millisecond}
	begin, end, err := l.run(t.Context(), p)
	require.NoError(t, err)
	require.EqualValues(t, 300, l.counted)
	require.GreaterOrEqual(t, end.Sub(begin), 299*time.Millisecond, "it is no faster than it was told to be")
	held := 0
	for _, bar := range l.latency.Distribution() {
		if bar.From > int64(50*time.Millisecond) {
			held += int(bar.Count)
		}
	}
	require.GreaterOrEqual(t, held, 140, "those due within the first 150 ms of the stall")
}

func TestPoints_HaveARoomForEachNine(t *testing.T) {
	require.Empty(t, points(newHistogram()))
	h := newHistogram()
	for i := 1; i <= 1000; i++ {
		record(h, time.Duration(i)*time.Millisecond)
	}
	all := points(h)
	require.Len(t, all, plotWidth)
	require.Zero(t, all[0].Percentile)
	require.InDelta(t, 99.9, all[plotWidth-1].Percentile, 1e-6, "1,000 messages say no more than three nines")
	for i := 1; i < len(all); i++ {
		require.Greater(t, all[i].Percentile, all[i-1].Percentile)
		require.GreaterOrEqual(t, all[i].Value, all[i-1].Value)
	}
}

func TestLatencyReport_SaysWhatItCannotKnow(t *testing.T) {
	h := newHistogram()
	for range 100 {
		record(h, time.Millisecond)
	}
	r := &LatencyReport{Path: "one way", Sent: 100, Received: 100, Latency: percentiles(h), Points: points(h)}
	var b bytes.Buffer
	require.NoError(t, r.WriteText(&b, true))
	for line := range strings.Lines(b.String()) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == "99" {
			require.Contains(t, line, "fewer than ten messages beyond it")
		}
	}
	require.Contains(t, b.String(), "latency by percentile")
}
