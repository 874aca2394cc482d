package drive

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"time"

	"github.com/buffstreams/watermill-buffstreams/benchmarks/internal/measure"
	"github.com/buffstreams/watermill-buffstreams/benchmarks/internal/peers"
)

// RoundTrip measures how long one Send after the other takes of a peer that returns when the message was handled.
func RoundTrip(ctx context.Context, p peers.Peer, s peers.Setup, d time.Duration) (Figures, error) {
	s.Senders = 1
	runtime.GC() // what earlier turns left
	tally := measure.NewTally(1, s.Size)
	to, err := p.Receive(s, tally)
	if err != nil {
		return nil, err
	}
	return roundTrip(ctx, p, s, d, to, tally, local{tally, time.Now()})
}

func roundTrip(ctx context.Context, p peers.Peer, s peers.Setup, d time.Duration, to peers.Receiver, tally *measure.Tally, c counter) (f Figures, err error) {
	defer func() { err = errors.Join(err, to.Close()) }()
	sender, err := p.Dial(s, to)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, sender.Close()) }()
	e := endpoints{sender: sender, tally: tally, count: c}
	took, err := e.pingFor(ctx, d)
	if err != nil {
		return nil, err
	}
	if err := e.settle(ctx, defaultPatience); err != nil {
		return nil, err
	}
	arrivals, err := c.arrivals()
	if err != nil {
		return nil, err
	}
	return Figures{P50: quantile(took, 0.5), P99: quantile(took, 0.99)}, arrivals.Check(tally.Sent(), true)
}

// pingFor sends for d after a warm-up that does not count, and then until one message was counted, and returns the times in µs, sorted.
func (e endpoints) pingFor(ctx context.Context, d time.Duration) ([]float64, error) {
	payloads := e.payloads(Load{Batch: 1})
	took := make([]float64, 0, 1<<17)
	n := uint64(0)
	goesOn := func(passed time.Duration) bool { return passed < d+d/5 || len(took) == 0 && passed < defaultPatience }
	for began := time.Now(); goesOn(time.Since(began)) && ctx.Err() == nil; n++ {
		batch := payloads()
		e.tally.Stamp(batch[0], 0, n)
		e.tally.Send(0, n+1)
		sent := time.Now()
		if err := e.sender.Send(0, batch); err != nil {
			return nil, err
		}
		if time.Since(began) > d/5 {
			took = append(took, float64(time.Since(sent))/1e3)
		}
	}
	if len(took) == 0 {
		return nil, errors.Join(errors.New("drive: not one round trip in the time of a turn"), ctx.Err())
	}
	slices.Sort(took)
	return took, nil
}

func quantile(sorted []float64, q float64) float64 {
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}
