package receiver

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

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/acked/sim"
	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
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
	case testkit.RaceEnabled: // one goroutine has no races but those with the committers
		count = 16
	case testing.Short():
		count = 100
	}
	if os.Getenv("SIM_SEED") != "" {
		return number("SIM_SEED", 0), 1
	}
	return number("SIM_FROM", 0), number("SEEDS", count)
}

// TestSimulation runs publishers and real Receivers through every fault, and holds the invariants of docs/design.md
// against what happens. Each seed publishes about 1,000 messages. A seed that fails is printed; SIM_SEED replays it
// exactly.
func TestSimulation(t *testing.T) {
	from, count := simSeeds(t)
	var delivered, steps atomic.Uint64
	var mu sync.Mutex
	seen := sim.Counters{}
	began := time.Now()
	eachSeed(t, from, count, func(seed uint64) {
		r, err := sim.Run(seed, newSimNode)
		report(t, err)
		delivered.Add(uint64(r.Delivered))
		steps.Add(uint64(r.Steps))
		mu.Lock()
		seen.Add(r.Seen)
		mu.Unlock()
	})
	t.Logf("%d seeds, %d messages, %d steps, %.1f seeds/s, went through %v", count, delivered.Load(), steps.Load(),
		float64(count)/time.Since(began).Seconds(), seen)
}

func report(t *testing.T, err error) {
	var v *sim.Violation
	if errors.As(err, &v) {
		t.Errorf("%v\nreplay it with SIM_SEED=%d go test ./internal/acked/receiver -run 'TestSimulation$' -v\nits last steps:\n%s",
			v, v.Seed, strings.Join(v.Trace, "\n"))
	}
}

// TestSimulation_Replays holds that a seed is the same run each time, to the byte. Few seeds come to where the order of
// a map or of goroutines would show, so that it takes many; other seeds run at the same time, which must not matter
// either.
func TestSimulation_Replays(t *testing.T) {
	count := uint64(100)
	if testkit.RaceEnabled {
		count = 8
	}
	eachSeed(t, 0, count, func(seed uint64) {
		first, err := sim.Run(seed, newSimNode)
		second, again := sim.Run(seed, newSimNode)
		assert.Equal(t, first, second, "seed %d", seed)
		assert.Equal(t, err, again, "seed %d", seed)
	})
}

// eachSeed runs so many seeds side by side, until one fails.
func eachSeed(t *testing.T, from, count uint64, run func(seed uint64)) {
	var next atomic.Uint64
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() { // ends when there is no seed left, or one has failed
			for n := next.Add(1) - 1; n < count && !t.Failed(); n = next.Add(1) - 1 {
				run(from + n)
			}
		})
	}
	wg.Wait()
}
