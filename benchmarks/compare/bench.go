package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/buffstreams/watermill-buffstreams/benchmarks/internal/drive"
	"github.com/buffstreams/watermill-buffstreams/benchmarks/internal/measure"
	"github.com/buffstreams/watermill-buffstreams/benchmarks/internal/peers"
	"github.com/buffstreams/watermill-buffstreams/benchmarks/internal/progress"
)

// plan says how much is measured.
type plan struct {
	Rounds     int           `json:"rounds"`
	Turn       time.Duration `json:"turn_ns"`
	RareRounds int           `json:"rare_rounds"`
	RareTurn   time.Duration `json:"rare_turn_ns"`
}

func planFor(quick bool) plan {
	if quick {
		return plan{Rounds: 3, Turn: 200 * time.Millisecond, RareRounds: 1, RareTurn: 500 * time.Millisecond}
	}
	return plan{Rounds: 9, Turn: 500 * time.Millisecond, RareRounds: 3, RareTurn: 1500 * time.Millisecond}
}

// rounds is how many there are of a contest.
func (p plan) rounds(rare bool) int {
	if rare {
		return p.RareRounds
	}
	return p.Rounds
}

// bench measures everything that is wanted.
func bench(ctx context.Context, dir string, p plan, only string) (*report, error) {
	s := &stage{dir: dir}
	r := &report{Facts: measure.Gather(dir, modules...), Plan: p, Results: map[string]*result{}}
	address, version, stop, err := peers.StartRedis()
	if err == nil {
		defer func() { _ = stop() }() // it stores nothing
		s.redis, r.Redis = address, version
	} else if !errors.Is(err, peers.ErrNoRedis) { // without one the page says so
		return nil, err
	}
	contests := slices.DeleteFunc(s.contests(), func(c contest) bool { return !wanted(only, c.name) })
	if len(contests) == 0 {
		return nil, fmt.Errorf("no contest begins with %q", only)
	}
	if err := r.run(ctx, contests); err != nil {
		return nil, err
	}
	if r.Making, err = drive.Making(peers.Setup{Size: messageBytes}, drive.Load{}); err != nil {
		return nil, err
	}
	r.subtractMaking()
	r.reach, err = r.goals()
	return r, err
}

// run holds the contests: in each round every contestant has a turn. Who begins changes from round to round, so that
// nobody always follows the same one. The first failure, a message that is missing included, ends the run.
func (r *report) run(ctx context.Context, contests []contest) error {
	steps := 0
	for _, c := range contests {
		r.Results[c.name] = newResult(c)
		r.order = append(r.order, c.name)
		steps += r.Plan.rounds(c.rare) * len(c.contestants)
	}
	bar := progress.New(os.Stderr, steps)
	defer bar.Done()
	// The rare ones come last: their goroutines stay in the runtime's books, 20,000 of them as ten MiB of heap that it
	// looks through at every collection.
	for _, rare := range []bool{false, true} {
		for round := range r.Plan.rounds(rare) {
			for _, c := range contests {
				if c.rare != rare {
					continue
				}
				if err := r.round(ctx, c, round, bar); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (r *report) round(ctx context.Context, c contest, round int, bar *progress.Bar) error {
	d := r.Plan.Turn
	if c.rare {
		d = r.Plan.RareTurn
	}
	first := round % len(c.contestants)
	for _, who := range slices.Concat(c.contestants[first:], c.contestants[:first]) {
		bar.Step(c.name + ": " + who.name)
		f, err := who.turn(ctx, d)
		if err != nil {
			return fmt.Errorf("%s, %s, round %d: %w", c.name, who.name, round+1, err)
		}
		r.Results[c.name].add(who.name, f)
	}
	return nil
}
