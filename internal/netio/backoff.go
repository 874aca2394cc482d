package netio

import (
	"math/rand/v2"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// FullJitter is a backoff.BackOff whose intervals are random between 0 and a bound that grows exponentially, so that
// many senders that lost one peer do not return in step. It is not safe for concurrent use.
type FullJitter struct {
	bound  *backoff.ExponentialBackOff
	rand   func() float64 // in [0, 1)
	waited time.Duration  // since Reset
	// doubles: no interval is longer than those before it together, or the first bound.
	doubles bool
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

// NewReconnect is NewFullJitter for what goes on until a peer is back: the end of an outage is noticed within as much
// time as it has taken. With the bound alone thousands of senders come back over ten seconds after one of five.
func NewReconnect(initial, limit time.Duration, multiplier float64) *FullJitter {
	j := NewFullJitter(initial, limit, multiplier)
	j.doubles = true
	return j
}

// NextBackOff returns the next interval, and lets the bound grow.
func (j *FullJitter) NextBackOff() time.Duration {
	bound := j.bound.NextBackOff()
	if j.doubles {
		bound = min(bound, max(j.waited, j.bound.InitialInterval))
	}
	wait := time.Duration(j.rand() * float64(bound))
	j.waited += wait
	return wait
}

// Reset makes the bound begin at its initial value again.
func (j *FullJitter) Reset() {
	j.bound.Reset()
	j.waited = 0
}
