package check

import (
	"context"
	"fmt"
	"strings"
)

// Ready looks whether a process is ready, as its /readyz says. The first reasons are named; it is critical if there is
// one.
func Ready(ctx context.Context, o MonitorOptions) (Result, error) {
	s, err := o.Stats(ctx)
	if err != nil {
		return Result{}, err
	}
	r := Result{Text: "ready", Perf: []Value{{Label: "reasons", Value: float64(len(s.NotReady)), Critical: 1}}}
	if len(s.NotReady) == 0 {
		return r, nil
	}
	r.State, r.Text = Critical, strings.Join(s.NotReady[:min(mostNamed, len(s.NotReady))], "; ")
	if more := len(s.NotReady) - mostNamed; more > 0 {
		r.Text += fmt.Sprintf("; and %d more", more)
	}
	return r, nil
}
