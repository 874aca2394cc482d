package drive

import (
	"context"
	"errors"
	"runtime"
	"runtime/metrics"
	"time"

	"github.com/buffstreams/watermill-buffstreams/benchmarks/internal/measure"
	"github.com/buffstreams/watermill-buffstreams/benchmarks/internal/peers"
)

// Names of figures.
const (
	Rate           = "messages_per_second"
	Bytes          = "bytes_per_second"
	Allocations    = "allocations_per_message"      // of the process of the sending end, or of both ends in one process
	ReceiverAllocs = "allocations_at_receiving_end" // a message, where that is a process of its own
	CPU            = "cpu_us_per_message"           // of this process, where the system tells it; Stream alone has it
	P50            = "p50_us"
	P99            = "p99_us"
)

// Figures are what a turn yields.
type Figures map[string]float64

// local counts in this process.
type local struct {
	tally *measure.Tally
	began time.Time
}

func (l local) progress() progress {
	return progress{Arrived: l.tally.Arrived(), Counted: l.tally.Counted(), At: time.Since(l.began)}
}

func (l local) arrivals() (measure.Arrivals, error) { return l.tally.Arrivals(), nil }

// Stream measures throughput with both ends in this process, over d after a warm-up that does not count.
func Stream(ctx context.Context, p peers.Peer, s peers.Setup, l Load, d time.Duration) (Figures, error) {
	l.setDefaults()
	s.Senders = l.Lanes
	besides := make([]byte, s.Heap)
	defer runtime.KeepAlive(besides)
	runtime.GC() // what earlier turns left
	tally := measure.NewTally(l.Lanes, s.Size)
	to, err := p.Receive(s, tally)
	if err != nil {
		return nil, err
	}
	return stream(ctx, p, s, l, d, to, tally, local{tally, time.Now()})
}

// stream runs a load to a receiving end, which it closes.
func stream(ctx context.Context, p peers.Peer, s peers.Setup, l Load, d time.Duration, to peers.Receiver, tally *measure.Tally, c counter) (f Figures, err error) {
	defer func() { err = errors.Join(err, to.Close()) }()
	sender, err := p.Dial(s, to)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, sender.Close()) }()
	e := endpoints{sender: sender, tally: tally, count: c, window: p.Window}
	f, err = e.run(ctx, l, d)
	if err != nil {
		return nil, err
	}
	arrivals, err := c.arrivals()
	if err != nil {
		return nil, err
	}
	f[Bytes] = f[Rate] * float64(tally.Size())
	return f, arrivals.Check(tally.Sent(), p.Ordered(s))
}

// run puts the load on, looks at its beginning and end, and waits until everything is there.
func (e endpoints) run(ctx context.Context, l Load, d time.Duration) (Figures, error) {
	if l.Primed {
		if err := e.prime(l); err != nil {
			return nil, err
		}
	}
	p := e.start(l)
	e.warmUp(ctx, p, l, d/5)
	first, allocs, sent, cpu := e.count.progress(), allocations(), e.tally.Sent(), cpuTime()
	last := first
	stuck := func() bool { return last.Counted == first.Counted || e.tally.Sent() == sent }
	for began := time.Now(); stuck() && ctx.Err() == nil && time.Since(began) < l.Patience; {
		pause(ctx, d)
		last = e.count.progress()
	}
	grown, published, cpu := allocations()-allocs, e.tally.Sent()-sent, cpuTime()-cpu
	if err := errors.Join(p.finish(), ctx.Err()); err != nil {
		return nil, err
	}
	if err := errors.Join(e.sender.Flush(), e.settle(ctx, l.Patience)); err != nil {
		return nil, err
	}
	f := between(first, last, grown, published)
	if counted := last.Counted - first.Counted; cpu > 0 && counted > 0 {
		f[CPU] = float64(cpu.Nanoseconds()) / 1000 / float64(counted)
	}
	return f, nil
}

// warmUp waits for the first messages, and then a while.
func (e endpoints) warmUp(ctx context.Context, p *pressure, l Load, d time.Duration) {
	began, enough := time.Now(), max(1, l.WarmUp/uint64(e.tally.Size()))
	for e.count.progress().Arrived < enough && len(p.failed) == 0 && ctx.Err() == nil && time.Since(began) < l.Patience {
		time.Sleep(time.Millisecond)
	}
	pause(ctx, d)
}

func between(first, last progress, grown, published uint64) Figures {
	f := Figures{}
	if n, t := float64(int64(last.Counted-first.Counted)), last.At-first.At; t > 0 && n > 0 {
		f[Rate] = n / t.Seconds()
		f[ReceiverAllocs] = float64(last.Allocations-first.Allocations) / n
	}
	if published > 0 {
		f[Allocations] = float64(grown) / float64(published)
	}
	return f
}

// allocations is how many objects this process has allocated so far.
func allocations() uint64 {
	samples := []metrics.Sample{{Name: "/gc/heap/allocs:objects"}, {Name: "/gc/heap/tiny/allocs:objects"}}
	metrics.Read(samples)
	return samples[0].Value.Uint64() + samples[1].Value.Uint64()
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// Making is how many allocations it takes to make a message and its payload, which Allocations includes.
func Making(s peers.Setup, l Load) (float64, error) {
	l.setDefaults()
	s.Senders = l.Lanes
	const calls = 20_000
	e := endpoints{tally: measure.NewTally(1, s.Size)}
	sender, payloads := peers.NoTransport(s), e.payloads(l)
	before := allocations()
	for range calls {
		if err := sender.Send(0, payloads()); err != nil {
			return 0, err
		}
	}
	return float64(allocations()-before) / calls / float64(l.Batch), nil
}
