package netio

import (
	"math/rand/v2"
	"slices"
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

// TestReconnect_FindsAPeerWithinAsMuchTimeAsItWasAway, and spreads thousands over that time.
func TestReconnect_FindsAPeerWithinAsMuchTimeAsItWasAway(t *testing.T) {
	const senders, initial, limit = 2000, 100 * time.Millisecond, 10 * time.Second
	seeded := rand.New(rand.NewPCG(3, 4))
	for _, outage := range []time.Duration{0, time.Second, 5 * time.Second, time.Minute} {
		var back []time.Duration
		dials := 0
		for range senders {
			j := NewReconnect(initial, limit, 2)
			j.rand = seeded.Float64
			j.waited = time.Hour
			j.Reset()
			at := time.Duration(0)
			for at <= outage {
				at += j.NextBackOff()
				dials++
			}
			back = append(back, at-outage)
		}
		slices.Sort(back)
		longest := min(limit, max(outage, initial))
		assert.LessOrEqual(t, back[senders-1], longest, "%v", outage)
		herd := 0 // the most within a fiftieth of that
		for i, from := 0, 0; i < senders; i++ {
			for back[i]-back[from] > longest/50 {
				from++
			}
			herd = max(herd, i-from+1)
		}
		assert.Less(t, herd, senders/8, "%v", outage)
		assert.Less(t, dials, senders*40, "%v", outage)
	}
}
