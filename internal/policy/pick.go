// Package policy chooses among the addresses of a route, by what is known of their state. It does no I/O and holds no
// state of its own: the root package dials, watches and sends.
package policy

import "github.com/buffstreams/watermill-buffstreams/route"

// Candidate is what a policy knows of one address of a route. Candidates are in the order of Route.Members.
type Candidate struct {
	route.Member
	State State
	// Fresh: the first attempt to connect is under way, and has not taken long.
	Fresh bool
	// Stable: it has been ready for a while.
	Stable bool
	// Slow: see Slow.
	Slow bool
}

// Load is how much an address has to do.
type Load struct {
	// Full: it takes nothing more for now.
	Full bool
	// Pending is the number of messages that are on their way to it.
	Pending int
}

// None is the address when none is to be used yet.
const None = -1

// grade says how good an address is for another message; 0: it is of no use now.
func (c *Candidate) grade() int {
	switch {
	case c.State != Ready:
		return 0
	case c.Slow:
		return 1
	}
	return 2
}

// Usable returns the indices of the candidates to choose from: of the lowest priority at which any is ready those with
// the best grade. It is nil if none is ready, or if one that may come soon has a lower priority. The result is appended
// to into.
func Usable(into []int, candidates []Candidate) []int {
	priority, grade, ready := 0, 0, false
	for i := range candidates {
		c := &candidates[i]
		g := c.grade()
		if g == 0 && !c.Fresh {
			continue
		}
		if !ready || c.Priority < priority {
			priority, grade, ready = c.Priority, g, true
		} else if c.Priority == priority {
			grade = max(grade, g)
		}
	}
	if grade == 0 {
		return nil
	}
	for i := range candidates {
		if c := &candidates[i]; c.Priority == priority && c.grade() == grade {
			into = append(into, i)
		}
	}
	return into
}

// before tells which of two addresses Failover prefers: of equal priority the same one everywhere.
func (c *Candidate) before(o *Candidate) bool {
	if c.Priority != o.Priority {
		return c.Priority < o.Priority
	}
	return c.Address < o.Address
}

// PickFailover returns the address to use where current (or None) was used last.
func PickFailover(current int, candidates []Candidate) int {
	best := None
	for i := range candidates {
		c := &candidates[i]
		if c.State != Ready && !(c.Fresh && current == None) {
			continue
		}
		if best == None || c.before(&candidates[best]) {
			best = i
		}
	}
	switch {
	case best == None || candidates[best].State != Ready: // another one may be there before long
		return None
	case current == None || candidates[current].State != Ready:
		return best
	case candidates[best].Priority < candidates[current].Priority && candidates[best].Stable:
		return best
	}
	return current
}

// PickRoundRobin returns the address of a turn, which is a number that grows by one with each message: of the usable
// ones the next that is not full, or the next of all if all are. load is called for an index of candidates.
func PickRoundRobin(turn uint64, candidates []Candidate, usable []int, load func(i int) Load) int {
	switch len(usable) {
	case 0:
		return None
	case 1:
		return usable[0]
	}
	at := turnOf(turn, candidates, usable)
	for k := range usable {
		if i := usable[(at+k)%len(usable)]; !load(i).Full {
			return i
		}
	}
	return usable[at]
}

// turnOf returns the place among the usable addresses of the one whose turn it is.
func turnOf(turn uint64, candidates []Candidate, usable []int) int {
	total, equal := uint64(0), true
	for _, i := range usable {
		total += uint64(candidates[i].Weight)
		equal = equal && candidates[i].Weight == candidates[usable[0]].Weight
	}
	if equal {
		return int(turn % uint64(len(usable)))
	}
	rest := turn % total * stride(total) % total
	for k, i := range usable {
		w := uint64(candidates[i].Weight)
		if rest < w {
			return k
		}
		rest -= w
	}
	return 0
}

// stride returns a number without a common divisor with total, by which turns of one address lie apart.
func stride(total uint64) uint64 {
	for s := max(1, total*618/1000); ; s++ {
		a, b := s, total
		for b != 0 {
			a, b = b, a%b
		}
		if a == 1 {
			return s
		}
	}
}

// PickLeastPending returns that of two usable addresses, chosen by two random numbers, which has fewer messages pending
// for its weight. If both are full it is the next one that is not, if any. load is called for an index of candidates.
func PickLeastPending(first, second uint64, candidates []Candidate, usable []int, load func(i int) Load) int {
	if len(usable) == 0 {
		return None
	}
	n := uint64(len(usable))
	at := first % n
	a := usable[at]
	if n == 1 {
		return a
	}
	b := usable[(at+1+second%(n-1))%n]
	loadA, loadB := load(a), load(b)
	switch {
	case loadA.Full && loadB.Full:
		for k := range n {
			if i := usable[(at+k)%n]; !load(i).Full {
				return i
			}
		}
	case loadA.Full != loadB.Full:
		if loadA.Full {
			return b
		}
		return a
	}
	if loadB.Pending*candidates[a].Weight < loadA.Pending*candidates[b].Weight {
		return b
	}
	return a
}
