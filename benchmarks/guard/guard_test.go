package guard

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/benchmarks/internal/drive"
	"github.com/buffstreams/watermill-buffstreams/benchmarks/internal/measure"
	"github.com/buffstreams/watermill-buffstreams/benchmarks/internal/peers"
)

// The least ratios, about half of what `go run ./benchmarks/compare` measures. Raise them with the library.
const (
	leastOverGoChannel   = 1.4  // ConfirmEnqueued with one unacked message × GoChannel with its defaults
	leastOverBuffStreams = 18.0 // pool on the plain wire × one write and two reads a message
)

const (
	rounds = 9
	turn   = 120 * time.Millisecond
)

func TestGuard_EnqueuedBesideGoChannel(t *testing.T) {
	setup := peers.Setup{Size: 110, InFlight: 1, Name: "guard"}
	got := compare(t, setup, false, peers.Enqueued, peers.GoChannel)
	require.GreaterOrEqual(t, got.Median, leastOverGoChannel, "median of %d rounds, %s", rounds, got)
}

func TestGuard_PlainBesideBuffStreams(t *testing.T) {
	setup := peers.Setup{Size: 110, Name: "guard"}
	got := compare(t, setup, true, peers.Plain, peers.BuffStreams)
	require.GreaterOrEqual(t, got.Median, leastOverBuffStreams, "median of %d rounds, %s", rounds, got)
}

// compare lets two peers take turns and returns how much faster the first was. reuse is for those that copy what they
// get.
func compare(t *testing.T, setup peers.Setup, reuse bool, of, to peers.Peer) measure.Spread {
	t.Helper()
	if testing.Short() || raceEnabled {
		t.Skip("timings need time, and mean nothing under the race detector")
	}
	rates := map[string][]float64{}
	for range rounds {
		for _, p := range []peers.Peer{of, to} {
			f, err := drive.Stream(context.Background(), p, setup, drive.Load{Reuse: reuse}, turn)
			require.NoError(t, err, p.Name)
			rates[p.Name] = append(rates[p.Name], f[drive.Rate])
		}
	}
	ratios, err := measure.Ratios(rates[of.Name], rates[to.Name])
	require.NoError(t, err)
	spread := measure.SpreadOf(ratios)
	t.Logf("%s × %s: %s", of.Name, to.Name, spread)
	return spread
}
