package chaos

import (
	"math/rand/v2"
	"time"
)

// The timers of both ends are scaled so that a black hole takes a second and not half a minute.
const (
	pingAfter        = 150 * time.Millisecond
	deadAfter        = 600 * time.Millisecond
	handshakeTimeout = 500 * time.Millisecond
	writeTimeout     = 400 * time.Millisecond
	longestFault     = 2 * deadAfter
)

// kind is one way in which a network fails. begin is done to a lane's relay; toxic makes the lane go through a toxiproxy
// besides. Both end with the fault.
type kind struct {
	name     string
	least    time.Duration // how long the fault lasts
	most     time.Duration
	damage   damage // the fault lasts until this is done, if that is earlier
	begin    func(*relay, direction)
	toxic    func(*rand.Rand) []toxic
	proxyDie bool // the process of all toxiproxies is killed in the middle
}

const ms = time.Millisecond

// kinds are dealt like cards: each comes as often as the others.
var kinds = []kind{
	{name: "reset within a frame", least: 400 * ms, most: 400 * ms, damage: truncate},
	{name: "closed", least: 400 * ms, most: 400 * ms, damage: hangUp},
	{name: "bit flipped", least: 400 * ms, most: 400 * ms, damage: flipBit},
	{name: "reset", begin: func(r *relay, _ direction) { r.cut(true) }},
	{name: "refused", least: 20 * ms, most: 200 * ms, begin: func(r *relay, _ direction) {
		r.tell(func() { r.refuse = true })
		r.cut(true)
	}},
	{name: "half open", least: 50 * ms, most: longestFault, begin: func(r *relay, _ direction) {
		r.tell(func() { r.swallow = [2]bool{true, true} })
	}},
	{name: "one way", least: 50 * ms, most: longestFault, begin: func(r *relay, d direction) {
		r.tell(func() { r.swallow[d] = true })
	}},
	{name: "stalled", least: 20 * ms, most: longestFault, begin: func(r *relay, d direction) {
		r.tell(func() { r.stall[d] = true })
	}},
	{name: "stalled both ways", least: 20 * ms, most: longestFault, begin: func(r *relay, _ direction) {
		r.tell(func() { r.stall = [2]bool{true, true} })
	}},

	{name: "toxic latency", least: 100 * ms, most: 400 * ms, toxic: both("latency", func(r *rand.Rand) map[string]int64 {
		return map[string]int64{"latency": 5 + r.Int64N(40), "jitter": r.Int64N(5)}
	})},
	{name: "toxic bandwidth", least: 100 * ms, most: 400 * ms, toxic: both("bandwidth", func(r *rand.Rand) map[string]int64 {
		return map[string]int64{"rate": 50 + r.Int64N(2000)} // KB/s
	})},
	{name: "toxic slicer", least: 100 * ms, most: 400 * ms, toxic: both("slicer", func(r *rand.Rand) map[string]int64 {
		size := 1 + r.Int64N(200)
		return map[string]int64{"average_size": size, "size_variation": size / 2, "delay": r.Int64N(50)} // bytes, µs
	})},
	{name: "toxic reset_peer", least: 100 * ms, most: 400 * ms, toxic: both("reset_peer", func(r *rand.Rand) map[string]int64 {
		return map[string]int64{"timeout": r.Int64N(50)}
	})},
	{name: "toxic timeout", least: 100 * ms, most: longestFault, toxic: one("timeout", func(r *rand.Rand) map[string]int64 {
		return map[string]int64{"timeout": r.Int64N(2) * r.Int64N(300)} // 0: until the end
	})},
	{name: "toxic limit_data", least: 100 * ms, most: 400 * ms, toxic: one("limit_data", func(r *rand.Rand) map[string]int64 {
		return map[string]int64{"bytes": r.Int64N(20000)}
	})},
	{name: "toxic slow_close", least: 100 * ms, most: 400 * ms, toxic: both("slow_close", func(r *rand.Rand) map[string]int64 {
		return map[string]int64{"delay": r.Int64N(300)}
	})},
	{name: "toxic flip", least: 100 * ms, most: 400 * ms, toxic: one("flip", func(r *rand.Rand) map[string]int64 {
		return map[string]int64{"every": 500 + r.Int64N(50000)}
	})},
	{name: "proxies killed", least: 100 * ms, most: 200 * ms, proxyDie: true, toxic: both("latency", func(r *rand.Rand) map[string]int64 {
		return map[string]int64{"latency": 1}
	})},
}

var streams = []string{"upstream", "downstream"}

// both makes a toxic for each direction.
func both(name string, attributes func(*rand.Rand) map[string]int64) func(*rand.Rand) []toxic {
	return func(r *rand.Rand) (all []toxic) {
		for _, s := range streams {
			all = append(all, toxic{Type: name, Stream: s, Attributes: attributes(r)})
		}
		return all
	}
}

// one makes a toxic for one direction.
func one(name string, attributes func(*rand.Rand) map[string]int64) func(*rand.Rand) []toxic {
	return func(r *rand.Rand) []toxic {
		return []toxic{{Type: name, Stream: streams[r.IntN(2)], Attributes: attributes(r)}}
	}
}

// fault is one card.
type fault struct {
	kind      kind
	direction direction
	skip      int // reads before damage
	toxics    []toxic
	before    time.Duration // of traffic without trouble
	lasts     time.Duration
}

// schedule deals faults, the same ones for the same seed.
type schedule struct {
	random *rand.Rand
	deck   []int
}

func newSchedule(seed, lane uint64) *schedule {
	return &schedule{random: rand.New(rand.NewPCG(seed, lane))}
}

func (s *schedule) next() fault {
	if len(s.deck) == 0 {
		s.deck = s.random.Perm(len(kinds))
	}
	k := kinds[s.deck[0]]
	s.deck = s.deck[1:]
	f := fault{kind: k, direction: direction(s.random.IntN(2)), skip: s.random.IntN(4), before: time.Duration(s.random.Int64N(int64(50 * ms)))}
	f.lasts = k.least + time.Duration(s.random.Int64N(int64(k.most-k.least)+1))
	if k.toxic != nil {
		f.toxics = k.toxic(s.random)
	}
	return f
}
