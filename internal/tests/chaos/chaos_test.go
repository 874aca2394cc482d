// Package chaos breaks the network between real publishers and subscribers, and keeps the account: nothing may be lost,
// duplicated or reordered, and everything drains once the network is whole again. Lanes run side by side, each with its
// own publishers (every confirm level, and the outbox), consumer groups and network: a relay that resets, refuses,
// truncates, flips bits, swallows and stalls, and toxiproxy before it.
//
//	CHAOS_FAULTS    how many faults happen, over all lanes; default 1,000
//	CHAOS_MESSAGES  how many messages are published meanwhile; default 1,000,000
//	CHAOS_LANES     default 16, and 10 in a soak
//	CHAOS_SEED      of a schedule to repeat; what happens in between still depends on the machine
//	SOAK            how long TestSoak runs; it is skipped without
package chaos

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
)

func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == toxicCommand {
		_ = serveToxics(os.Stdin, os.Stdout) // ends with its input
		os.Exit(0)
	}
	testkit.Main(m)
}

func TestChaos(t *testing.T) {
	testkit.CheckLeaks(t)
	faults, messages := uint64(1000), uint64(1_000_000)
	if testing.Short() || testkit.RaceEnabled {
		faults, messages = 100, 50_000
	}
	faults, messages = testkit.EnvNumber(t, "CHAOS_FAULTS", faults), testkit.EnvNumber(t, "CHAOS_MESSAGES", messages)
	lanes := testkit.EnvNumber(t, "CHAOS_LANES", 16)
	seed := testkit.EnvNumber(t, "CHAOS_SEED", uint64(time.Now().UnixNano())%1e9)
	t.Logf("repeat this schedule with CHAOS_SEED=%d CHAOS_FAULTS=%d CHAOS_MESSAGES=%d CHAOS_LANES=%d", seed, faults, messages, lanes)

	began := time.Now()
	w := newWorld(t, seed, int(lanes))
	each := (faults + lanes - 1) / lanes
	perFault := (messages + 2*lanes*each - 1) / (2 * lanes * each)
	w.torment(func(n int) bool { return n >= int(each) }, perFault)
	tormented := time.Since(began)
	drained := w.drain()
	w.settle()
	w.close()
	sum := w.verdict()
	w.report(tormented, drained, sum)
	require.GreaterOrEqual(t, w.published(), messages)
	require.GreaterOrEqual(t, w.happened(), faults)
}

// report prints the figures.
func (w *world) report(tormented, drained time.Duration, sum tally) {
	connections := int64(0)
	for _, l := range w.lanes {
		connections += l.relay.accepted.Load()
	}
	w.t.Logf("%d faults and %d connections in %v; %d messages published, %d handled, %d nacked, %d lost, %d duplicated, %d reordered; "+
		"drained %v after the network healed; %d faults had nothing to happen to", w.happened(), connections,
		tormented.Round(time.Millisecond), w.published(), sum.handled, sum.nacked, sum.lost, sum.duplicated, sum.reordered,
		drained.Round(time.Millisecond), w.missed.Load())
	var kinds []string
	for _, k := range slices.Sorted(maps.Keys(w.counts)) {
		kinds = append(kinds, fmt.Sprintf("%s %d", k, w.counts[k]))
	}
	w.t.Logf("faults: %s", strings.Join(kinds, ", "))
}

func (w *world) published() (n uint64) {
	for _, f := range w.flows() {
		n += f.published.Load()
	}
	return n
}

func (w *world) happened() (n uint64) {
	for _, l := range w.lanes {
		n += uint64(l.faults.Load())
	}
	return n
}
