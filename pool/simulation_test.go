package pool

import (
	"errors"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/sim"
)

// simSeeds says which seeds TestSimulation runs: SIM_SEED one, SEEDS so many, from SIM_FROM on.
func simSeeds(t *testing.T) (from, count uint64) {
	number := func(name string, otherwise uint64) uint64 {
		s := os.Getenv(name)
		if s == "" {
			return otherwise
		}
		n, err := strconv.ParseUint(s, 10, 64)
		require.NoError(t, err, name)
		return n
	}
	switch count = 2000; {
	case raceEnabled: // one goroutine has no races but those with the savers
		count = 16
	case testing.Short():
		count = 100
	}
	if os.Getenv("SIM_SEED") != "" {
		return number("SIM_SEED", 0), 1
	}
	return number("SIM_FROM", 0), number("SEEDS", count)
}

// TestSimulation runs publishers and real endpoints through every fault, and holds the invariants of docs/design.md against
// what happens. Each seed publishes about 1,000 messages. A seed that fails is printed; SIM_SEED replays it exactly.
func TestSimulation(t *testing.T) {
	from, count := simSeeds(t)
	var next, delivered, steps atomic.Uint64
	var mu sync.Mutex
	seen := sim.Counters{}
	began := time.Now()
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() { // ends when there is no seed left, or one has failed
			for n := next.Add(1) - 1; n < count && !t.Failed(); n = next.Add(1) - 1 {
				r, err := sim.Run(from+n, newSimNode)
				report(t, err)
				delivered.Add(uint64(r.Delivered))
				steps.Add(uint64(r.Steps))
				mu.Lock()
				seen.Add(r.Seen)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	t.Logf("%d seeds, %d messages, %d steps, %.1f seeds/s, went through %v", count, delivered.Load(), steps.Load(),
		float64(count)/time.Since(began).Seconds(), seen)
}

func report(t *testing.T, err error) {
	var v *sim.Violation
	if errors.As(err, &v) {
		t.Errorf("%v\nreplay it with SIM_SEED=%d go test ./pool -run 'TestSimulation$' -v\nits last steps:\n%s",
			v, v.Seed, strings.Join(v.Trace, "\n"))
	}
}

// TestSimulationReplays holds that a seed is the same run each time, to the byte.
func TestSimulationReplays(t *testing.T) {
	seeds := uint64(12)
	if raceEnabled {
		seeds = 3
	}
	for seed := range seeds {
		first, _ := sim.Run(seed, newSimNode)
		second, _ := sim.Run(seed, newSimNode)
		require.Equal(t, first, second, "seed %d", seed)
	}
}
