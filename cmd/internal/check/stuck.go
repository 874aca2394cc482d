package check

import (
	"context"
	"fmt"
	"strings"

	"github.com/buffstreams/watermill-buffstreams/monitor"
)

// MonitorOptions say where to look.
type MonitorOptions struct {
	Stats func(ctx context.Context) (monitor.Stats, error)
}

// mostNamed is how many of what is stuck a line names.
const mostNamed = 3

// Stuck looks for what a process shows as stuck. The worst are named, with their reasons; it is critical where messages
// wait.
func Stuck(ctx context.Context, o MonitorOptions) (Result, error) {
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
	named := make([]string, 0, mostNamed)
	for _, one := range s.Stuck[:min(mostNamed, len(s.Stuck))] {
		named = append(named, fmt.Sprintf("%s %s: %s", one.What, one.Name, one.Why))
	}
	r.Text = strings.Join(named, "; ")
	if more := len(s.Stuck) - len(named); more > 0 {
		r.Text += fmt.Sprintf("; and %d more", more)
	}
	return r, nil
}
