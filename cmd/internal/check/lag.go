package check

import (
	"context"
	"fmt"
	"time"

	"github.com/buffstreams/watermill-buffstreams/monitor"
)

// LagOptions say which groups to look at, and what is too much.
type LagOptions struct {
	Stats func(ctx context.Context) (monitor.Stats, error)
	// Topic and Group choose; empty means all.
	Topic, Group string
	// Warn and Critical are messages; 0 means never. Age is of the oldest message that is not settled.
	Warn, Critical int
	Age            Limits
}

// Lag looks how far the groups of a process are behind. What is the furthest behind decides.
func Lag(ctx context.Context, o LagOptions) (Result, error) {
	s, err := o.Stats(ctx)
	if err != nil {
		return Result{}, err
	}
	most, oldest, groups := 0, time.Duration(0), 0
	lagging, old := "", ""
	for i := range s.Listeners {
		for j := range s.Listeners[i].Topics {
			t := &s.Listeners[i].Topics[j]
			for _, g := range t.Groups {
				if o.Topic != "" && t.Topic != o.Topic || o.Group != "" && g.Group != o.Group {
					continue
				}
				name := fmt.Sprintf("topic %.100q group %.100q", t.Topic, g.Group)
				groups++
				if g.Lag >= most {
					most, lagging = g.Lag, name
				}
				if age := s.At.Sub(g.OldestUnsettled); !g.OldestUnsettled.IsZero() && age > oldest {
					oldest, old = age, name
				}
			}
		}
	}
	if groups == 0 {
		return Result{}, fmt.Errorf("there is no group of topic %q and group %q", o.Topic, o.Group)
	}
	r := Result{
		State: max(above(float64(most), float64(o.Warn), float64(o.Critical)), o.Age.of(oldest)),
		Text:  fmt.Sprintf("%d groups, at most %d messages behind: %s", groups, most, lagging),
		Perf: []Value{
			{Label: "lag", Value: float64(most), Warn: float64(o.Warn), Critical: float64(o.Critical)}, o.Age.value("oldest", oldest),
		},
	}
	if oldest > 0 {
		r.Text += fmt.Sprintf("; the oldest message is %v old: %s", oldest.Round(time.Millisecond), old)
	}
	return r, nil
}
