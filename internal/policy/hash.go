package policy

import (
	"hash/fnv"
	"math"

	"github.com/buffstreams/watermill-buffstreams/route"
)

// Slots is the number of slots that Hash maps keys to. A slot belongs to one address at a time, and moves as a whole.
const Slots = 256

// Slot returns the slot of a key.
func Slot(key string) int {
	h := fnv.New64a()
	_, _ = h.Write([]byte(key))
	return int(mix(h.Sum64()) % Slots)
}

// mix spreads each bit over all of the result.
func mix(h uint64) uint64 {
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	return h ^ h>>31
}

// slack is how much more than its share of the slots an address can get. Without a bound the share of one of three
// addresses would be larger by a quarter now and then; with it such an address gives up a few slots, which is all that
// moves besides.
const slack = 0.06

// AssignSlots returns the index of the address of every slot. It depends on nothing but the members: every publisher
// that sees the same set comes to the same result, and one that comes or goes moves about its own share of the slots.
// There must be one member at least.
func AssignSlots(members []route.Member) (owners [Slots]int) {
	seeds, room := make([]uint64, len(members)), make([]int, len(members))
	total := 0
	for _, m := range members {
		total += m.Weight
	}
	for i, m := range members {
		h := fnv.New64a()
		_, _ = h.Write([]byte(m.Address))
		seeds[i] = mix(h.Sum64())
		room[i] = int(math.Ceil(Slots * (float64(m.Weight)/float64(total) + slack)))
	}
	for slot := range owners {
		best, bestScore := 0, math.Inf(-1)
		for i, m := range members {
			if score := score(seeds[i], slot, m.Weight); room[i] > 0 && score > bestScore {
				best, bestScore = i, score
			}
		}
		owners[slot] = best
		room[best]--
	}
	return owners
}

// score is the weight of an address for a slot in rendezvous hashing: the highest wins.
func score(seed uint64, slot, weight int) float64 {
	h := mix(seed ^ mix(uint64(slot)+1))
	u := (float64(h>>11) + 0.5) / (1 << 53) // in (0, 1)
	return -float64(weight) / math.Log(u)
}
