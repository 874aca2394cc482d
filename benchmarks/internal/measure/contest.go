package measure

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// Turn lets a contestant work for about d on messages that the ledger accounts for, starting afresh, and returns its
// pace. When it returns, everything that will ever arrive has arrived.
type Turn func(ctx context.Context, l *Ledger, d time.Duration) (Pace, error)

// Contestant is one of those that are compared.
type Contestant struct {
	Name string
	Turn Turn
}

// Contest compares contestants at one task.
type Contest struct {
	Name         string
	Senders      int // of the ledger of each turn
	MessageBytes int
	Contestants  []Contestant
}

// Plan says how long contests take.
type Plan struct {
	Rounds int
	Turn   time.Duration
	// Step is called before each turn; nil means that nobody wants to know.
	Step func(contest, contestant string)
}

// Result holds what each contestant reached in each round, in messages per second.
type Result struct {
	Contest     string
	Contestants []string
	Rates       map[string][]float64
}

// Rate sums up what a contestant reached.
func (r Result) Rate(contestant string) Spread { return SpreadOf(r.Rates[contestant]) }

// Ratio sums up how much faster one contestant was than another, round by round.
func (r Result) Ratio(of, to string) (Spread, error) {
	ratios, err := Ratios(r.Rates[of], r.Rates[to])
	if err != nil {
		return Spread{}, fmt.Errorf("%s, %s to %s: %w", r.Contest, of, to, err)
	}
	return SpreadOf(ratios), nil
}

// Run holds the contests: in each round every contestant of every contest has a turn. Who begins changes from round to
// round, so that nobody always follows the same one. The first failure, a message that is not accounted for included,
// ends the run.
func Run(ctx context.Context, plan Plan, contests ...Contest) ([]Result, error) {
	results := make([]Result, len(contests))
	for i, c := range contests {
		results[i] = Result{Contest: c.Name, Rates: map[string][]float64{}}
		for _, who := range c.Contestants {
			results[i].Contestants = append(results[i].Contestants, who.Name)
		}
	}
	for round := range plan.Rounds {
		for i, c := range contests {
			if err := c.round(ctx, plan, round, results[i].Rates); err != nil {
				return nil, err
			}
		}
	}
	return results, nil
}

func (c Contest) round(ctx context.Context, plan Plan, round int, rates map[string][]float64) error {
	first := round % len(c.Contestants)
	for _, who := range slices.Concat(c.Contestants[first:], c.Contestants[:first]) {
		if plan.Step != nil {
			plan.Step(c.Name, who.Name)
		}
		rate, err := c.turn(ctx, who, plan.Turn)
		if err != nil {
			return fmt.Errorf("%s, %s, round %d: %w", c.Name, who.Name, round+1, err)
		}
		rates[who.Name] = append(rates[who.Name], rate)
	}
	return nil
}

func (c Contest) turn(ctx context.Context, who Contestant, d time.Duration) (float64, error) {
	ledger := NewLedger(c.Senders, c.MessageBytes)
	pace, err := who.Turn(ctx, ledger, d)
	if err != nil {
		return 0, err
	}
	return pace.PerSecond(), ledger.Account().Check()
}
