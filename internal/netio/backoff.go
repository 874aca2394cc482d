package netio

import (
	"math/rand/v2"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// FullJitter waits anything between nothing and an exponentially growing bound,
// so that many writers that lost one peer do not return in step.
type FullJitter struct {
	bound *backoff.ExponentialBackOff
	rand  func() float64
}

func NewFullJitter(initial, limit time.Duration, multiplier float64) *FullJitter {
	bound := &backoff.ExponentialBackOff{
		InitialInterval: initial,
		Multiplier:      multiplier,
		MaxInterval:     limit,
	}
	bound.Reset()
	return &FullJitter{bound: bound, rand: rand.Float64}
}

func (j *FullJitter) NextBackOff() time.Duration {
	return time.Duration(j.rand() * float64(j.bound.NextBackOff()))
}

func (j *FullJitter) Reset() { j.bound.Reset() }
