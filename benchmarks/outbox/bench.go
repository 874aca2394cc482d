package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/buffstreams/watermill-buffstreams/benchmarks/internal/durable"
	"github.com/buffstreams/watermill-buffstreams/benchmarks/internal/measure"
	"github.com/buffstreams/watermill-buffstreams/benchmarks/internal/progress"
	"github.com/buffstreams/watermill-buffstreams/benchmarks/internal/recovery"
)

const messageBytes = 110

// Who takes part.
const (
	bare     = "bare group commit"
	ours     = "outbox"
	synced   = "JetStream, sync_always"
	unsynced = "JetStream, its default"
)

var senders = []int{1, 16, 128}

// plan says how much is measured.
type plan struct {
	rounds  int
	turn    time.Duration
	pending int   // messages that a crash leaves
	opened  []int // one crash each: messages of the calls that stored them
	away    []int // messages that wait for the peer
}

func planFor(quick bool) plan {
	if quick {
		return plan{rounds: 5, turn: 250 * time.Millisecond, pending: 1_000_000, opened: []int{1000}, away: []int{100_000, 500_000}}
	}
	return plan{
		rounds: 20, turn: 400 * time.Millisecond, pending: 1_000_000,
		opened: []int{1000, 1000, 1000, 1}, away: []int{100_000, 500_000, 1_000_000},
	}
}

func bench(ctx context.Context, dir string, p plan) (*report, error) {
	r := &report{Facts: measure.Gather(dir, modules...), Rounds: p.rounds, TurnSeconds: p.turn.Seconds()}
	contests := contests(dir)
	steps := len(p.opened) + 1
	for _, c := range contests {
		steps += p.rounds * len(c.Contestants)
	}
	bar := progress.New(os.Stderr, steps)
	defer bar.Done()
	results, err := measure.Run(ctx, measure.Plan{Rounds: p.rounds, Turn: p.turn, Step: func(contest, who string) {
		bar.Step(contest + ": " + who)
	}}, contests...)
	if err != nil {
		return nil, err
	}
	if err := r.addThroughput(results); err != nil {
		return nil, err
	}
	return r, r.addRecovery(ctx, dir, p, bar)
}

func contests(dir string) (all []measure.Contest) {
	for _, n := range senders {
		all = append(all, measure.Contest{
			Name: fmt.Sprintf("%d publishing", n), Senders: n, MessageBytes: messageBytes,
			Contestants: []measure.Contestant{
				{Name: bare, Turn: durable.Bare.Turn(dir)},
				{Name: ours, Turn: durable.Outbox.Turn(dir)},
				{Name: synced, Turn: durable.JetStream(true).Turn(dir)},
				{Name: unsynced, Turn: durable.JetStream(false).Turn(dir)},
			},
		})
	}
	return all
}

func (r *report) addThroughput(results []measure.Result) error {
	for i, result := range results {
		t := throughput{Senders: senders[i], Rates: map[string]measure.Spread{}, Ratios: map[string]measure.Spread{}}
		for _, who := range result.Contestants {
			t.Rates[who] = result.Rate(who)
			ratio, err := result.Ratio(ours, who)
			if err != nil {
				return err
			}
			t.Ratios[who] = ratio
		}
		r.Throughput = append(r.Throughput, t)
	}
	return nil
}

func (r *report) addRecovery(ctx context.Context, dir string, p plan, bar *progress.Bar) error {
	for i, batch := range p.opened {
		bar.Step("recovery")
		opened, err := recovery.Open(ctx, filepath.Join(dir, fmt.Sprintf("opened-%d", i)), p.pending, batch)
		if err != nil {
			return fmt.Errorf("recovery: %w", err)
		}
		r.Opened = append(r.Opened, opened)
	}
	bar.Step("the peer is away")
	at := filepath.Join(dir, "away")
	if err := os.Mkdir(at, 0o700); err != nil {
		return err
	}
	away, err := recovery.PeerAway(ctx, at, p.away...)
	if err != nil {
		return fmt.Errorf("a peer that is away: %w", err)
	}
	r.Away = away
	return nil
}
