package bench

import (
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Report is what a run measured. Its JSON form only gets further fields while Version stays the same.
type Report struct {
	Version        int      `json:"version"` // 1
	Mode           Mode     `json:"mode"`
	Topic          string   `json:"topic"`
	Clients        int      `json:"clients"`
	Size           int      `json:"size"` // of a payload in bytes; what is sent, not what is received
	Batch          int      `json:"batch"`
	Confirm        string   `json:"confirm"` // "outbox" with one
	WarmUpMessages int64    `json:"warmup_messages"`
	DrainSeconds   float64  `json:"drain_seconds"` // how long an outbox took to become empty afterwards
	Publish        *Summary `json:"publish"`       // null where this process did not publish
	Receive        *Summary `json:"receive"`
	Interrupted    bool     `json:"interrupted"`
}

// Summary is one side of a run. Rates are per second.
type Summary struct {
	Messages       int64        `json:"messages"`
	Bytes          int64        `json:"bytes"` // of payloads
	Seconds        float64      `json:"seconds"`
	Rate           float64      `json:"rate"`
	BytesPerSecond float64      `json:"bytes_per_second"`
	Clients        *Spread      `json:"client_rates"` // over the clients
	PerSecond      *Spread      `json:"second_rates"` // over the whole seconds of the run; null if there was none
	Durations      *Percentiles `json:"durations"`    // of Publish calls; from Publish to handler for what is received
	ByClient       []ClientRate `json:"rate_by_client"`
}

// ClientRate is what one client measured.
type ClientRate struct {
	Messages int64   `json:"messages"`
	Bytes    int64   `json:"bytes"`
	Seconds  float64 `json:"seconds"`
	Rate     float64 `json:"rate"`
}

func (o *Options) report(interrupted bool) *Report {
	confirm := o.ConfirmName
	if o.Outbox != "" {
		confirm = "outbox"
	}
	return &Report{
		Version: 1, Mode: o.Mode, Topic: o.Topic, Clients: o.Clients, Size: o.Size, Batch: o.Batch, Confirm: confirm,
		Interrupted: interrupted,
	}
}

// summarize puts clients together: the time goes from the first that began to the last that ended.
func summarize(clients []tally, durations *hdrhistogram.Histogram, seconds []float64) *Summary {
	s := &Summary{Durations: percentiles(durations), PerSecond: spread(seconds), ByClient: []ClientRate{}}
	var first, last time.Time
	var rates []float64
	for _, t := range clients {
		s.Messages += t.messages
		s.Bytes += t.bytes
		if t.messages > 0 {
			if first.IsZero() || t.first.Before(first) {
				first = t.first
			}
			if t.last.After(last) {
				last = t.last
			}
		}
		one := ClientRate{Messages: t.messages, Bytes: t.bytes, Seconds: t.seconds(), Rate: rate(t.messages, t.seconds())}
		s.ByClient = append(s.ByClient, one)
		rates = append(rates, one.Rate)
	}
	s.Seconds = last.Sub(first).Seconds()
	s.Rate, s.BytesPerSecond = rate(s.Messages, s.Seconds), rate(s.Bytes, s.Seconds)
	s.Clients = spread(rates)
	return s
}

// rate is 0 where no time has passed, as with a single message that was received.
func rate(n int64, seconds float64) float64 {
	if seconds <= 0 {
		return 0
	}
	return float64(n) / seconds
}

// ErrMismatch means that not exactly what was confirmed was received.
var ErrMismatch = errors.New("what was received is not what was published")

func (r *Report) compare() error {
	if r.Publish.Messages != r.Receive.Messages {
		return fmt.Errorf("%w: %d messages were published, %d received", ErrMismatch, r.Publish.Messages, r.Receive.Messages)
	}
	return nil
}

// WriteJSON writes one object on one line.
func (r *Report) WriteJSON(w io.Writer) error { return json.NewEncoder(w).Encode(r) }

// WriteCSV writes a header, a line for each client, and one for all of a side, whose client is "all".
func (r *Report) WriteCSV(w io.Writer) error {
	c := csv.NewWriter(w)
	err := c.Write([]string{"side", "client", "messages", "bytes", "seconds", "rate", "p50_ms", "p90_ms", "p99_ms", "p99_9_ms", "max_ms"})
	float := func(f float64) string { return strconv.FormatFloat(f, 'f', 6, 64) }
	for _, part := range r.sides() {
		for i, one := range part.ByClient {
			err = errors.Join(err, c.Write([]string{part.name, strconv.Itoa(i), strconv.FormatInt(one.Messages, 10),
				strconv.FormatInt(one.Bytes, 10), float(one.Seconds), float(one.Rate), "", "", "", "", ""}))
		}
		row := []string{part.name, "all", strconv.FormatInt(part.Messages, 10), strconv.FormatInt(part.Bytes, 10),
			float(part.Seconds), float(part.Rate), "", "", "", "", ""}
		if d := part.Durations; d != nil {
			copy(row[6:], []string{float(d.P50), float(d.P90), float(d.P99), float(d.P999), float(d.Max)})
		}
		err = errors.Join(err, c.Write(row))
	}
	c.Flush()
	return errors.Join(err, c.Error())
}

type namedSummary struct {
	name, durations string
	*Summary
}

func (r *Report) sides() (s []namedSummary) {
	if r.Publish != nil {
		s = append(s, namedSummary{"publish", fmt.Sprintf("Publish calls of up to %d", r.Batch), r.Publish})
	}
	if r.Receive != nil {
		s = append(s, namedSummary{"receive", "from Publish to handler", r.Receive})
	}
	return s
}

// WriteText writes the report for readers.
func (r *Report) WriteText(w io.Writer) error {
	_, err := fmt.Fprintf(w, "%s, clients: %d, payload: %d bytes, confirm: %s, warm-up: %d messages\n",
		r.Topic, r.Clients, r.Size, r.Confirm, r.WarmUpMessages)
	for _, s := range r.sides() {
		_, sideErr := fmt.Fprintf(w, "%s  %d messages in %.3f s: %.0f messages/s, %.1f MB/s\n",
			s.name, s.Messages, s.Seconds, s.Rate, s.BytesPerSecond/1e6)
		err = errors.Join(err, sideErr, writeSpread(w, "clients", s.Clients), writeSpread(w, "seconds", s.PerSecond),
			writePercentiles(w, s.durations, s.Durations))
	}
	if r.DrainSeconds > 0 {
		_, drainErr := fmt.Fprintf(w, "the outbox was empty %.3f s later\n", r.DrainSeconds)
		err = errors.Join(err, drainErr)
	}
	return err
}

func writeSpread(w io.Writer, what string, s *Spread) error {
	if s == nil {
		return nil
	}
	_, err := fmt.Fprintf(w, "  %s  min %.0f | avg %.0f | max %.0f | stddev %.0f messages/s\n", what, s.Min, s.Avg, s.Max, s.StdDev)
	return err
}

func writePercentiles(w io.Writer, what string, p *Percentiles) error {
	if p == nil {
		return nil
	}
	_, err := fmt.Fprintf(w, "  %s  50 %% %.3f | 90 %% %.3f | 99 %% %.3f | 99.9 %% %.3f | max %.3f ms\n", what, p.P50, p.P90, p.P99, p.P999, p.Max)
	return err
}
