package netio

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/stretchr/testify/assert"
)

func TestFullJitter_StaysWithinItsBound(t *testing.T) {
	most, seen := NewFullJitter(100*time.Millisecond, 10*time.Second, 2), NewFullJitter(100*time.Millisecond, 10*time.Second, 2)
	most.rand = func() float64 { return 1 }
	seeded := rand.New(rand.NewPCG(1, 2))
	seen.rand = seeded.Float64
	bound := 100 * time.Millisecond
	for range 20 {
		assert.Equal(t, bound, most.NextBackOff())
		got := seen.NextBackOff()
		assert.True(t, got >= 0 && got < bound, "%v of %v", got, bound)
		bound = min(2*bound, 10*time.Second)
	}
	most.Reset()
	assert.Equal(t, 100*time.Millisecond, most.NextBackOff())
	least := NewFullJitter(time.Second, time.Second, 1)
	least.rand = func() float64 { return 0 }
	assert.Zero(t, least.NextBackOff())
	var _ backoff.BackOff = least
}
