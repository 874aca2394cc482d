package guard

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/benchmarks/internal/drive"
	"github.com/buffstreams/watermill-buffstreams/benchmarks/internal/measure"
	"github.com/buffstreams/watermill-buffstreams/benchmarks/internal/peers"
)

// least are the least ratios of one peer to another. Raise them with the library.
type least struct {
	// work is of messages to the processor time that they take, and about half of what is measured: other processes on the machine
	// change it little.
	work float64
	// rate is of messages to the time that passes. A machine with forty processes that want it leaves two thirds of what it has
	// alone: this is a fourth, for what waits where it need not.
	rate float64
}

var (
	overGoChannel   = least{work: 1.1, rate: 0.7} // ConfirmEnqueued with one unacked message × GoChannel with its defaults
	overBuffStreams = least{work: 15, rate: 9}    // pool on the plain wire × one write and two reads a message
)

const (
	rounds = 9
	turn   = 250 * time.Millisecond
)

func TestGuard_EnqueuedBesideGoChannel(t *testing.T) {
	setup := peers.Setup{Size: 110, InFlight: 1, Name: "guard"}
	compare(t, setup, false, peers.Enqueued, peers.GoChannel, overGoChannel)
}

func TestGuard_PlainBesideBuffStreams(t *testing.T) {
	setup := peers.Setup{Size: 110, Name: "guard"}
	compare(t, setup, true, peers.Plain, peers.BuffStreams, overBuffStreams)
}

// compare lets two peers take turns, and holds how much faster the first is. reuse is for those that copy what they get.
func compare(t *testing.T, setup peers.Setup, reuse bool, of, to peers.Peer, want least) {
	t.Helper()
	if testing.Short() || raceEnabled {
		t.Skip("timings need time, and mean nothing under the race detector")
	}
	rates, work := map[string][]float64{}, map[string][]float64{}
	for range rounds {
		for _, p := range []peers.Peer{of, to} {
			f, err := drive.Stream(context.Background(), p, setup, drive.Load{Reuse: reuse}, turn)
			require.NoError(t, err, p.Name)
			rates[p.Name] = append(rates[p.Name], f[drive.Rate])
			if cpu := f[drive.CPU]; cpu > 0 { // not every system tells it
				work[p.Name] = append(work[p.Name], 1/cpu)
			}
		}
	}
	hold := func(what string, figures map[string][]float64, want float64) {
		ratios, err := measure.Ratios(figures[of.Name], figures[to.Name])
		require.NoError(t, err)
		spread := measure.SpreadOf(ratios)
		t.Logf("messages by %s: %s × %s: %s", what, of.Name, to.Name, spread)
		assert.GreaterOrEqual(t, spread.Median, want, "messages by %s, median of %d rounds, %s", what, rounds, spread)
	}
	hold("time", rates, want.rate)
	if len(work) > 0 {
		hold("processor time", work, want.work)
	}
}
