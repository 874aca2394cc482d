package measure

import (
	"fmt"
	"slices"
)

// Spread sums up values of several rounds. The zero value is of no values.
type Spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
	Rounds int     `json:"rounds"`
}

// SpreadOf leaves values as they are. The median of an even number of values is the mean of the two in the middle.
func SpreadOf(values []float64) Spread {
	if len(values) == 0 {
		return Spread{}
	}
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	return Spread{Median: (sorted[(n-1)/2] + sorted[n/2]) / 2, Min: sorted[0], Max: sorted[n-1], Rounds: n}
}

// Ratios divides the values of each round, so that what slows a whole round down cancels out. Both must have the same
// rounds; anything else is a mistake in the benchmark.
func Ratios(of, to []float64) ([]float64, error) {
	if len(of) != len(to) {
		return nil, fmt.Errorf("measure: %d rounds cannot be compared with %d", len(of), len(to))
	}
	ratios := make([]float64, len(of))
	for i := range of {
		if to[i] <= 0 {
			return nil, fmt.Errorf("measure: round %d has nothing to compare with", i+1)
		}
		ratios[i] = of[i] / to[i]
	}
	return ratios, nil
}
