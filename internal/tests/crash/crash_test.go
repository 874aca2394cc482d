//go:build linux

// Package crash kills real processes, with SIGKILL at random moments, and keeps the account: a parent re-executes this
// test binary as publishers with outboxes and as their subscriber, and learns through pipes what they confirmed and
// handled. What a process wrote into a pipe outlives it.
//
//	KILLS  how often something is killed, over all modes; default 40
//	SEED   of a schedule to repeat; processes still interleave as they like
package crash

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
)

func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == childCommand { // this process is to be killed
		if err := runChild(os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	testkit.Main(m)
}

// memory is where a subscriber remembers what it has handled.
type memory string

const (
	inProcess  memory = "in process"         // forgotten with it, so that it must live
	inStore    memory = "in a DedupeStore"   // written at each ack
	withEffect memory = "in the transaction" // of the handler's effect
)

// mode is one way to run a subscriber, and with it what the account may say.
type mode struct {
	name        string
	memory      memory
	maxInFlight int
}

// duplicates is how many messages of one subscription may have their effect twice because the subscriber was killed: those
// whose effect was there and whose ack was not durable.
func (m mode) duplicates() int {
	if m.memory == inStore {
		return m.maxInFlight
	}
	return 0
}

var modes = []mode{
	{"live receiver", inProcess, 1},
	{"durable DedupeStore", inStore, 1},
	{"durable DedupeStore, 16 in flight by key", inStore, 16},
	{"position committed with the effect", withEffect, 1},
}

func TestCrash(t *testing.T) {
	kills := testkit.EnvNumber(t, "KILLS", 40)
	if testing.Short() {
		kills = min(kills, uint64(len(modes)))
	}
	seed := testkit.EnvNumber(t, "SEED", uint64(time.Now().UnixNano())%1e9)
	t.Logf("repeat this schedule with SEED=%d KILLS=%d", seed, kills)
	for i, m := range modes {
		share := (int(kills) + i) / len(modes) // the remainder goes to the last ones
		t.Run(m.name, func(t *testing.T) {
			w := newWorld(t, m, seed+uint64(i))
			began := time.Now()
			w.torment(share)
			w.drain()
			got := w.account.verdict(t, m)
			t.Logf("%d times killed (%d times the subscriber) in %v: %d confirmed, %d handled (%d of them unconfirmed), %d twice, "+
				"at most %d of a subscription at one kill",
				share, w.subscriberKills, time.Since(began).Round(10*time.Millisecond),
				got.confirmed, got.handled, got.unknown, got.duplicates, got.worst)
			require.LessOrEqual(t, got.duplicates, w.subscriberKills*m.duplicates()*len(topics))
			require.Greater(t, got.confirmed, share, "too few messages to show anything")
		})
	}
}
