package netio

import (
	"math/rand/v2"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// FullJitter is a backoff.BackOff whose intervals are random between 0 and a bound that grows exponentially, so that
// many senders that lost one peer do not return in step. It is not safe for concurrent use.
type FullJitter struct {
	bound *backoff.ExponentialBackOff
	rand  func() float64 // in [0, 1)
}

// NewFullJitter returns a FullJitter whose bound begins at initial and is multiplied at each step until it reaches
// limit.
func NewFullJitter(initial, limit time.Duration, multiplier float64) *FullJitter {
	bound := &backoff.ExponentialBackOff{
		InitialInterval: initial,
		Multiplier:      multiplier,
		MaxInterval:     limit,
	}
	bound.Reset()
	return &FullJitter{bound: bound, rand: rand.Float64}
}

// NextBackOff returns the next interval, and lets the bound grow.
func (j *FullJitter) NextBackOff() time.Duration {
	return time.Duration(j.rand() * float64(j.bound.NextBackOff()))
}

// Reset makes the bound begin at its initial value again.
func (j *FullJitter) Reset() { j.bound.Reset() }
