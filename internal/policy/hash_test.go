package policy

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/route"
)

func membersOf(addresses ...string) []route.Member {
	return route.Route{Addresses: addresses, Policy: route.Hash}.Members()
}

// moved is the share of keys that are at another address with the second set.
func moved(keys []string, before, after []route.Member) float64 {
	a, b := AssignSlots(before), AssignSlots(after)
	n := 0
	for _, key := range keys {
		if slot := Slot(key); before[a[slot]].Address != after[b[slot]].Address {
			n++
		}
	}
	return float64(n) / float64(len(keys))
}

// TestHash_OneOfNComesOrGoes: about a share of 1/n of the keys moves, over many sets of addresses.
func TestHash_OneOfNComesOrGoes(t *testing.T) {
	const sets = 1000
	keys := make([]string, 2000)
	for i := range keys {
		keys[i] = fmt.Sprintf("customer-%d", i)
	}
	dice := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{3, 10, 50} {
		sum, worst := 0.0, 0.0
		for range sets {
			addresses := make([]string, n)
			for i := range addresses {
				addresses[i] = fmt.Sprintf("10.%d.%d.%d:5031", dice.IntN(256), dice.IntN(256), dice.IntN(256))
			}
			all := membersOf(addresses...)
			less := membersOf(addresses[1:]...)
			for _, share := range []float64{moved(keys, all, less), moved(keys, less, all)} {
				sum += share
				worst = max(worst, share)
			}
		}
		mean, share := sum/(2*sets), 1/float64(n)
		t.Logf("n=%d: mean %.4f (1/n %+.4f), worst %.4f (1/n %+.4f)", n, mean, mean-share, worst, worst-share)
		require.LessOrEqual(t, mean, share+0.01)
		require.LessOrEqual(t, worst, share+0.09)
	}
}
