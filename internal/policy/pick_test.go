package policy

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/route"
)

// ready returns n candidates that are ready.
func ready(n int) []Candidate {
	candidates := make([]Candidate, n)
	for i := range candidates {
		candidates[i] = Candidate{Member: route.Member{Address: fmt.Sprintf("10.0.0.%d:1", i), Attributes: route.Attributes{Weight: 1}}, State: Ready}
	}
	return candidates
}

// none has nothing to do.
func none(int) Load { return Load{} }

func TestUsable_PrefersReadyAndPrompt(t *testing.T) {
	c := ready(4)
	require.Equal(t, []int{0, 1, 2, 3}, Usable(nil, c))
	c[0].State = Failed
	require.Equal(t, []int{1, 2, 3}, Usable(nil, c))
	c[2].Slow = true
	require.Equal(t, []int{1, 3}, Usable(nil, c))
	c[1].State, c[3].State = Connecting, Draining
	require.Equal(t, []int{2}, Usable(nil, c), "a slow one is better than none")
	c[2].State = Idle
	require.Empty(t, Usable(nil, c))
}

// TestUsable_PromptBeforeSlow, wherever they are among the others.
func TestUsable_PromptBeforeSlow(t *testing.T) {
	for slow := range 8 {
		c := ready(3)
		var prompt []int
		for i := range c {
			if c[i].Slow = slow>>i&1 == 1; !c[i].Slow {
				prompt = append(prompt, i)
			}
		}
		if prompt == nil {
			prompt = []int{0, 1, 2}
		}
		require.Equal(t, prompt, Usable(nil, c))
	}
}

func TestUsable_LowestPriorityFirst(t *testing.T) {
	c := ready(4)
	c[0].Priority, c[1].Priority, c[2].Priority, c[3].Priority = 2, 1, 1, 0
	require.Equal(t, []int{3}, Usable(nil, c))
	c[3].State = Failed
	require.Equal(t, []int{1, 2}, Usable(nil, c))
	c[1].Slow, c[2].Slow = true, true
	require.Equal(t, []int{1, 2}, Usable(nil, c), "the next priority is for addresses that are not there")
	c[1].State, c[2].State = Failed, Failed
	require.Equal(t, []int{0}, Usable(nil, c))
	c[1].Fresh, c[1].State = true, Connecting
	require.Empty(t, Usable(nil, c), "one of a lower priority may come soon")
}

func TestFailover_LowestPriorityThatIsReady(t *testing.T) {
	c := ready(3)
	c[0].Priority, c[1].Priority, c[2].Priority = 1, 0, 2
	require.Equal(t, 1, PickFailover(None, c))
	c[1].State = Failed
	require.Equal(t, 0, PickFailover(1, c))
	c[0].State = Draining
	require.Equal(t, 2, PickFailover(0, c))
	c[2].State = Failed
	require.Equal(t, None, PickFailover(2, c))
}

func TestFailover_GoesBackAfterAStableWhile(t *testing.T) {
	c := ready(2)
	c[1].Priority = 1
	require.Equal(t, 1, PickFailover(1, c), "the first is there again, but not for long")
	c[0].Stable = true
	require.Equal(t, 0, PickFailover(1, c))
}

func TestFailover_StaysAmongEquals(t *testing.T) {
	c := ready(3)
	for i := range c {
		c[i].Stable = true
	}
	require.Equal(t, 2, PickFailover(2, c))
	c[0], c[2] = c[2], c[0]
	require.Equal(t, "10.0.0.0:1", c[PickFailover(None, c)].Address, "the same one everywhere")
}

func TestFailover_WaitsForAnAttemptThatMaySucceed(t *testing.T) {
	c := ready(2)
	c[1].Priority = 1
	c[0].State, c[0].Fresh = Connecting, true
	require.Equal(t, None, PickFailover(None, c))
	require.Equal(t, 1, PickFailover(1, c), "but not where another one is in use")
	c[0].Fresh = false
	require.Equal(t, 1, PickFailover(None, c))
}

func TestRoundRobin_SharesEvenly(t *testing.T) {
	c := ready(3)
	var got []int
	for turn := range uint64(6) {
		got = append(got, PickRoundRobin(turn, c, []int{0, 1, 2}, none))
	}
	require.Equal(t, []int{0, 1, 2, 0, 1, 2}, got)
	require.Equal(t, None, PickRoundRobin(1, c, nil, none))
}

// TestRoundRobin_SharesByWeight: in proportion, and not in one run each.
func TestRoundRobin_SharesByWeight(t *testing.T) {
	c := ready(3)
	c[0].Weight, c[1].Weight, c[2].Weight = 60, 30, 10
	counts, last, run, longest := [3]int{}, None, 0, 0
	for turn := range uint64(1000) {
		i := PickRoundRobin(turn, c, []int{0, 1, 2}, none)
		counts[i]++
		if i == last {
			run++
		} else {
			last, run = i, 1
		}
		longest = max(longest, run)
	}
	require.Equal(t, [3]int{600, 300, 100}, counts)
	require.Less(t, longest, 10)
}

func TestRoundRobin_PassesTheFullOnes(t *testing.T) {
	c, full := ready(3), map[int]bool{1: true}
	load := func(i int) Load { return Load{Full: full[i]} }
	var got []int
	for turn := range uint64(6) {
		got = append(got, PickRoundRobin(turn, c, []int{0, 1, 2}, load))
	}
	require.Equal(t, []int{0, 2, 2, 0, 2, 2}, got)
	full[0], full[2] = true, true
	require.Equal(t, 1, PickRoundRobin(1, c, []int{0, 1, 2}, load), "all are full")
}

func TestLeastPending_TheOneOfTwoWithLess(t *testing.T) {
	c, loads := ready(2), []Load{{Pending: 5}, {Pending: 3}}
	load := func(i int) Load { return loads[i] }
	for a := range uint64(4) {
		require.Equal(t, 1, PickLeastPending(a, a+1, c, []int{0, 1}, load))
	}
	loads[1].Pending, c[0].Weight = 6, 2
	require.Equal(t, 0, PickLeastPending(1, 0, c, []int{0, 1}, load), "twice the weight")
	loads[0].Pending = 13
	require.Equal(t, 1, PickLeastPending(0, 0, c, []int{0, 1}, load))
	require.Equal(t, 0, PickLeastPending(7, 9, c, []int{0}, load))
	require.Equal(t, None, PickLeastPending(7, 9, c, nil, load))
}

func TestLeastPending_PassesTheFullOnes(t *testing.T) {
	c, loads := ready(3), []Load{{Full: true}, {Pending: 100}, {Full: true}}
	load := func(i int) Load { return loads[i] }
	for a := range uint64(6) {
		require.Equal(t, 1, PickLeastPending(a, a/3, c, []int{0, 1, 2}, load))
	}
	loads[2] = Load{Pending: 1}
	require.Equal(t, 2, PickLeastPending(0, 1, c, []int{0, 1, 2}, load), "of the two, and not the next one")
	loads[1], loads[2] = Load{Full: true}, Load{Full: true}
	require.Contains(t, []int{0, 1, 2}, PickLeastPending(1, 1, c, []int{0, 1, 2}, load))
}

// TestLeastPending_LooksAtTwoOfMany, each as often as the others.
func TestLeastPending_LooksAtTwoOfMany(t *testing.T) {
	const n, rounds = 5, 50000
	c, all := ready(n), []int{0, 1, 2, 3, 4}
	dice, counts := rand.New(rand.NewPCG(3, 4)), [n]int{}
	for range rounds {
		counts[PickLeastPending(dice.Uint64(), dice.Uint64(), c, all, none)]++
	}
	for _, count := range counts {
		require.InDelta(t, rounds/n, count, rounds/n*0.1)
	}
	busy := func(i int) Load { return Load{Pending: i / 3 % 2} } // 3 and 4 have one
	counts = [n]int{}
	for range rounds {
		counts[PickLeastPending(dice.Uint64(), dice.Uint64(), c, all, busy)]++
	}
	require.InDelta(t, rounds/10, counts[3]+counts[4], rounds/50, "only where both of two have one")
}

// TestHash_DependsOnTheSetAlone, not on the order of its addresses.
func TestHash_DependsOnTheSetAlone(t *testing.T) {
	addresses := []string{"a:1", "b:1", "c:1", "d:1", "e:1"}
	want, members := AssignSlots(membersOf(addresses...)), membersOf(addresses...)
	for range 20 {
		rand.Shuffle(len(addresses), func(i, j int) { addresses[i], addresses[j] = addresses[j], addresses[i] })
		shuffled := membersOf(addresses...)
		for slot, owner := range AssignSlots(shuffled) {
			require.Equal(t, members[want[slot]].Address, shuffled[owner].Address)
		}
	}
}

func TestHash_SharesByWeight(t *testing.T) {
	members := membersOf("a:1", "b:1", "c:1")
	members[0].Weight = 2
	counts := [3]int{}
	for _, owner := range AssignSlots(members) {
		counts[owner]++
	}
	require.InDelta(t, Slots/2, counts[0], Slots*0.08)
	require.InDelta(t, Slots/4, counts[1], Slots*0.08)
}

func TestHash_KeysSpreadOverTheSlots(t *testing.T) {
	counts := [Slots]int{}
	const keys = Slots * 100
	for i := range keys {
		counts[Slot(fmt.Sprintf("user-%d", i))]++
	}
	for _, count := range counts {
		require.InDelta(t, 100, count, 60)
	}
}
