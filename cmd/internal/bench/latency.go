package bench

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/guptarohit/asciigraph"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/cmd/internal/access"
	"github.com/buffstreams/watermill-buffstreams/cmd/internal/ask"
	"github.com/buffstreams/watermill-buffstreams/cmd/internal/pipe"
)

// LatencyOptions say what to send, and how often.
type LatencyOptions struct {
	// Topic is where a replier echoes requests; empty means from this process to itself, over a loopback socket.
	Topic    string
	Rate     float64 // messages per second
	Duration time.Duration
	WarmUp   time.Duration
	Size     int
	Timeout  time.Duration
	Access   access.Access
	Logger   watermill.LoggerAdapter
}

func (o *LatencyOptions) check() error {
	switch {
	case o.Rate <= 0 || o.Rate > 1e7 || math.IsNaN(o.Rate):
		return fmt.Errorf("--rate %v is not above 0, and at most 10000000", o.Rate)
	case o.Duration <= 0:
		return fmt.Errorf("--duration %v is not positive", o.Duration)
	case o.WarmUp < 0:
		return fmt.Errorf("--warmup %v is negative", o.WarmUp)
	case o.Size < stampSize || o.Size > 1<<28:
		return fmt.Errorf("--size %d is not between %d and %d", o.Size, stampSize, 1<<28)
	case o.Timeout <= 0:
		return fmt.Errorf("--timeout %v is not positive", o.Timeout)
	case o.Rate*o.Duration.Seconds() < 1:
		return errors.New("--rate and --duration make less than one message")
	}
	return nil
}

// LatencyReport is what latency measured. Its JSON form only gets further fields while Version stays the same.
type LatencyReport struct {
	Version  int     `json:"version"` // 1
	Path     string  `json:"path"`    // "one way" or "round trip"
	Topic    string  `json:"topic"`
	Size     int     `json:"size"`
	Wanted   float64 `json:"wanted_rate"`
	Rate     float64 `json:"rate"` // that was reached
	Sent     int64   `json:"sent"`
	Received int64   `json:"received"`
	// Latency goes from when a message was due, not from when it was sent: a stall counts for all that it held up.
	Latency *Percentiles `json:"latency"`
	// Late is how long after it was due a message was given to Publish.
	Late        *Percentiles `json:"late"`
	Points      []Point      `json:"points"` // for a plot
	Interrupted bool         `json:"interrupted"`
}

// Point is a percentile and its value in milliseconds.
type Point struct {
	Percentile float64 `json:"percentile"`
	Value      float64 `json:"ms"`
}

// path is a way for messages, from send to the arrived function that it was made with.
type path interface {
	send(payload []byte) error
	explain() string // why messages do not arrive; empty: that is not known
	Close() error
}

// meter takes the times of one run.
type meter struct {
	o        *LatencyOptions
	base     time.Time
	sent     int64
	late     *hdrhistogram.Histogram
	received atomic.Int64 // with the warm-up

	mu      sync.Mutex
	latency *hdrhistogram.Histogram
	counted int64
}

// arrived takes the payload of a message that has come back. The warm-up has a negative time.
func (l *meter) arrived(payload []byte) {
	now := time.Since(l.base)
	if len(payload) < stampSize {
		return // not one of ours
	}
	due := int64(binary.BigEndian.Uint64(payload))
	if due >= 0 {
		l.mu.Lock()
		record(l.latency, now-time.Duration(due))
		l.counted++
		l.mu.Unlock()
	}
	l.received.Add(1)
}

// Latency sends at a set rate, whatever happens to the messages before.
func Latency(ctx context.Context, o LatencyOptions) (*LatencyReport, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	l := &meter{o: &o, base: time.Now(), latency: newHistogram(), late: newHistogram()}
	r := &LatencyReport{Version: 1, Path: "one way", Topic: o.Topic, Size: o.Size, Wanted: o.Rate}
	var p path
	var err error
	if o.Topic == "" {
		p, err = newLoop(&o, l.arrived)
	} else {
		r.Path = "round trip"
		p, err = newEcho(&o, l.arrived)
	}
	if err != nil {
		return nil, err
	}
	begin, end, err := l.run(ctx, p)
	if err == nil && l.received.Load() < l.sent {
		err = l.await(ctx, p)
	}
	err = behind(err, p.Close())
	l.mu.Lock()
	defer l.mu.Unlock()
	r.Sent, r.Received = l.late.TotalCount(), l.counted
	r.Latency, r.Late, r.Points = percentiles(l.latency), percentiles(l.late), points(l.latency)
	r.Rate = rate(r.Sent, end.Sub(begin).Seconds())
	if err == nil && ctx.Err() != nil {
		r.Interrupted, err = true, pipe.ErrInterrupted
	}
	return r, err
}

// run sends the warm-up and what is measured, at the same rate.
func (l *meter) run(ctx context.Context, p path) (begin, end time.Time, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	gap := float64(time.Second) / l.o.Rate
	payload := make([]byte, l.o.Size)
	start := time.Now()
	warm := int64(l.o.WarmUp.Seconds() * l.o.Rate)
	all := warm + int64(l.o.Duration.Seconds()*l.o.Rate)
	begin = start.Add(l.o.WarmUp)
	for i := range all {
		due := start.Add(time.Duration(float64(i) * gap))
		sleepUntil(due)
		if ctx.Err() != nil {
			break
		}
		stamp := int64(-1)
		if i >= warm {
			stamp = int64(due.Sub(l.base))
			record(l.late, time.Since(due))
		}
		binary.BigEndian.PutUint64(payload, uint64(stamp))
		if err = p.send(payload); err != nil {
			break
		}
		l.sent++
	}
	return begin, time.Now(), err
}

// await waits for what is on its way.
func (l *meter) await(ctx context.Context, p path) error {
	poll := time.NewTicker(time.Millisecond)
	defer poll.Stop()
	over := time.After(l.o.Timeout)
	for l.received.Load() < l.sent {
		select {
		case <-poll.C:
		case <-ctx.Done():
			return nil
		case <-over:
			err := fmt.Errorf("%d of %d messages did not come within %v", l.sent-l.received.Load(), l.sent, l.o.Timeout)
			if why := p.explain(); why != "" {
				err = fmt.Errorf("%w: %s", err, why)
			}
			return err
		}
	}
	return nil
}

// loop is from this process to itself.
type loop struct {
	topic     string
	publisher *buffstreams.Publisher
	open      []io.Closer // in the order in which they were opened
	wg        sync.WaitGroup
}

func newLoop(o *LatencyOptions, arrived func([]byte)) (p *loop, err error) {
	p = &loop{}
	if err := p.start(o, arrived); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

func (p *loop) start(o *LatencyOptions, arrived func([]byte)) error {
	common := Options{Size: o.Size, Timeout: o.Timeout, Access: o.Access, Logger: o.Logger}
	receiving, err := common.manager()
	if err != nil {
		return err
	}
	p.open = append(p.open, receiving)
	sub, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{Manager: receiving, MaxInFlight: 256, CloseTimeout: o.Timeout}, o.Logger)
	if err != nil {
		return err
	}
	p.open = append(p.open, sub)
	const here = "127.0.0.1:0/latency"
	messages, err := sub.Subscribe(context.Background(), here)
	if err != nil {
		return err
	}
	p.wg.Go(func() { // ends when Close has closed the subscription
		for m := range messages {
			arrived(m.Payload)
			m.Ack()
		}
	})
	at, err := sub.Addr(here)
	if err != nil {
		return err
	}
	p.topic = pipe.WithPort(here, at)
	sending, err := common.manager()
	if err != nil {
		return err
	}
	p.open = append(p.open, sending)
	p.publisher, err = buffstreams.NewPublisher(buffstreams.PublisherConfig{
		Manager: sending, Confirm: buffstreams.ConfirmEnqueued, PublishTimeout: o.Timeout, CloseTimeout: o.Timeout,
	}, o.Logger)
	if err == nil {
		p.open = append(p.open, p.publisher)
	}
	return err
}

func (p *loop) send(payload []byte) error {
	return p.publisher.Publish(p.topic, message.NewMessage("", payload))
}

func (p *loop) explain() string { return "" }

func (p *loop) Close() error {
	slices.Reverse(p.open)
	err := closeAfter(nil, p.open...)
	p.wg.Wait()
	return err
}

// echo is to a replier and back.
type echo struct{ requester *ask.Requester }

func newEcho(o *LatencyOptions, arrived func([]byte)) (*echo, error) {
	r, err := ask.NewRequester(ask.RequestOptions{
		Topic: o.Topic, Timeout: o.Timeout, MaxMessageSize: max(o.Size, 1<<20), Access: o.Access, Logger: o.Logger,
		Confirm: buffstreams.ConfirmEnqueued,
		OnReply: func(reply *message.Message) { arrived(reply.Payload) },
	})
	return &echo{r}, err
}

func (e *echo) send(payload []byte) error { return pipe.Explain(e.requester.Send(payload, nil)) }
func (e *echo) explain() string           { return e.requester.Explain() }
func (e *echo) Close() error              { return e.requester.Close() }

// plotWidth is the number of points of a plot.
const plotWidth = 60

// points are spaced evenly in nines: each nine has as much room as all before it take together on a linear axis.
func points(h *hdrhistogram.Histogram) []Point {
	n := h.TotalCount()
	if n == 0 {
		return []Point{}
	}
	nines := min(5, max(1, math.Floor(math.Log10(float64(n)))))
	out := make([]Point, plotWidth)
	for i := range out {
		q := 100 * (1 - math.Pow(10, -nines*float64(i)/float64(plotWidth-1)))
		out[i] = Point{q, float64(h.ValueAtQuantile(q)) / perMillisecond}
	}
	return out
}

// WriteJSON writes one object on one line.
func (r *LatencyReport) WriteJSON(w io.Writer) error { return json.NewEncoder(w).Encode(r) }

// WriteText writes the percentiles, and the plot where that is wanted.
func (r *LatencyReport) WriteText(w io.Writer, plot bool) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, %d of %d messages of %d bytes at %.0f/s (wanted %.0f/s)\n", r.Path, r.Received, r.Sent, r.Size, r.Rate, r.Wanted)
	if l := r.Latency; l != nil {
		fmt.Fprintf(&b, "%12s %12s\n", "percentile", "latency ms")
		for _, row := range []Point{
			{0, l.Min}, {50, l.P50}, {90, l.P90}, {99, l.P99}, {99.9, l.P999}, {99.99, l.P9999}, {99.999, l.P99999}, {100, l.Max},
		} {
			note := ""
			if row.Percentile < 100 && row.Percentile > l.Trusted {
				note = "  (fewer than ten messages beyond it)"
			}
			fmt.Fprintf(&b, "%12s %12.3f%s\n", strconv.FormatFloat(row.Percentile, 'f', -1, 64), row.Value, note)
		}
		fmt.Fprintf(&b, "%12s %12.3f\n%12s %12.3f\n", "mean", l.Mean, "stddev", l.StdDev)
	}
	if r.Late != nil {
		fmt.Fprintf(&b, "sent late: 50 %% %.3f | 99 %% %.3f | max %.3f ms, which the latencies include\n", r.Late.P50, r.Late.P99, r.Late.Max)
	}
	if plot && len(r.Points) > 0 {
		b.WriteString("\n" + r.plot() + "\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (r *LatencyReport) plot() string {
	series := make([]float64, len(r.Points))
	for i, p := range r.Points {
		series[i] = p.Value
	}
	last := r.Points[len(r.Points)-1].Percentile
	nines := -math.Log10(1 - last/100)
	return asciigraph.Plot(series, asciigraph.Height(12), asciigraph.LowerBound(0),
		asciigraph.YAxisValueFormatter(func(v float64) string { return strconv.FormatFloat(v, 'f', 3, 64) + " ms" }),
		asciigraph.XAxisRange(0, nines), asciigraph.XAxisTickCount(int(math.Round(nines))+1),
		asciigraph.XAxisValueFormatter(func(x float64) string {
			return strconv.FormatFloat(100*(1-math.Pow(10, -x)), 'f', max(0, int(math.Round(x))-2), 64) + "%"
		}),
		asciigraph.Caption("latency by percentile"))
}
