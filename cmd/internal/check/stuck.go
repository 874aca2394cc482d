package check

import (
	"context"
	"fmt"

	"github.com/buffstreams/watermill-buffstreams/monitor"
)

// StuckOptions say where to look.
type StuckOptions struct {
	Stats func(ctx context.Context) (monitor.Stats, error)
}

// Stuck looks for what a process shows as stuck. The worst is named, with its reason; it is critical where messages wait for it.
func Stuck(ctx context.Context, o StuckOptions) (Result, error) {
	s, err := o.Stats(ctx)
	if err != nil {
		return Result{}, err
	}
	critical := 0
	for i := range s.Stuck {
		if s.Stuck[i].Critical {
			critical++
		}
	}
	r := Result{Text: "nothing is stuck", Perf: []Value{
		{Label: "critical", Value: float64(critical), Critical: 1}, {Label: "warnings", Value: float64(len(s.Stuck) - critical), Warn: 1},
	}}
	if len(s.Stuck) == 0 {
		return r, nil
	}
	if r.State = Warning; critical > 0 {
		r.State = Critical
	}
	worst := &s.Stuck[0]
	r.Text = fmt.Sprintf("%s %s: %s", worst.What, worst.Name, worst.Why)
	if more := len(s.Stuck) - 1; more > 0 {
		r.Text += fmt.Sprintf("; and %d more", more)
	}
	return r, nil
}
