package main

import (
	"fmt"

	"github.com/buffstreams/watermill-buffstreams/benchmarks/internal/drive"
	"github.com/buffstreams/watermill-buffstreams/benchmarks/internal/measure"
)

// result holds what the contestants of a contest reached, round by round.
type result struct {
	Title       string                          `json:"title"`
	Contestants []string                        `json:"contestants"`
	Figures     map[string]map[string][]float64 `json:"rounds"` // by contestant and figure
}

func newResult(c contest) *result {
	r := &result{Title: c.title, Figures: map[string]map[string][]float64{}}
	for _, who := range c.contestants {
		r.Contestants = append(r.Contestants, who.name)
		r.Figures[who.name] = map[string][]float64{}
	}
	return r
}

func (r *result) add(who string, f drive.Figures) {
	for name, v := range f {
		r.Figures[who][name] = append(r.Figures[who][name], v)
	}
}

func (r *result) of(who, figure string) measure.Spread {
	return measure.SpreadOf(r.Figures[who][figure])
}

// ratio divides round by round by the best of those it is compared with, the one with the highest figure.
func (r *result) ratio(figure, of string, to ...string) (measure.Spread, error) {
	best := append([]float64(nil), r.Figures[to[0]][figure]...)
	for _, other := range to[1:] {
		for i, v := range r.Figures[other][figure] {
			if i < len(best) {
				best[i] = max(best[i], v)
			}
		}
	}
	ratios, err := measure.Ratios(r.Figures[of][figure], best)
	if err != nil {
		return measure.Spread{}, fmt.Errorf("%s, %s to %v: %w", r.Title, of, to, err)
	}
	return measure.SpreadOf(ratios), nil
}
