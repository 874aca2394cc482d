package bench

import (
	"math"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// longest is the largest duration that histograms tell from larger ones.
const longest = 10 * time.Minute

// newHistogram is of durations in nanoseconds, with three significant digits.
func newHistogram() *hdrhistogram.Histogram {
	return hdrhistogram.New(1, int64(longest), 3)
}

func record(h *hdrhistogram.Histogram, d time.Duration) {
	_ = h.RecordValue(min(max(int64(d), 1), int64(longest))) // it is in range
}

// Spread describes a set of values.
type Spread struct {
	Min    float64 `json:"min"`
	Avg    float64 `json:"avg"`
	Max    float64 `json:"max"`
	StdDev float64 `json:"stddev"`
}

// spread is of all values, so the deviation is that of a population. Without values it is nil.
func spread(values []float64) *Spread {
	if len(values) == 0 {
		return nil
	}
	s := Spread{Min: math.Inf(1), Max: math.Inf(-1)}
	for _, v := range values {
		s.Min, s.Max = min(s.Min, v), max(s.Max, v)
		s.Avg += v / float64(len(values))
	}
	for _, v := range values {
		s.StdDev += (v - s.Avg) * (v - s.Avg) / float64(len(values))
	}
	s.StdDev = math.Sqrt(s.StdDev)
	return &s
}

// Percentiles are of durations, in milliseconds.
type Percentiles struct {
	Count   int64   `json:"count"`
	Min     float64 `json:"min_ms"`
	Mean    float64 `json:"mean_ms"`
	P50     float64 `json:"p50_ms"`
	P90     float64 `json:"p90_ms"`
	P99     float64 `json:"p99_ms"`
	P999    float64 `json:"p99_9_ms"`
	P9999   float64 `json:"p99_99_ms"`
	P99999  float64 `json:"p99_999_ms"`
	Max     float64 `json:"max_ms"`
	StdDev  float64 `json:"stddev_ms"`
	Trusted float64 `json:"trusted_percentile"` // the highest for which there were ten values beyond it
}

const perMillisecond = float64(time.Millisecond)

// percentiles is nil if nothing was recorded.
func percentiles(h *hdrhistogram.Histogram) *Percentiles {
	n := h.TotalCount()
	if n == 0 {
		return nil
	}
	at := func(q float64) float64 { return float64(h.ValueAtQuantile(q)) / perMillisecond }
	return &Percentiles{
		Count: n, Min: float64(h.Min()) / perMillisecond, Mean: h.Mean() / perMillisecond,
		P50: at(50), P90: at(90), P99: at(99), P999: at(99.9), P9999: at(99.99), P99999: at(99.999),
		Max: float64(h.Max()) / perMillisecond, StdDev: h.StdDev() / perMillisecond,
		Trusted: max(0, 100-1000/float64(n)),
	}
}
