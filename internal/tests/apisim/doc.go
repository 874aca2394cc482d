// Package apisim runs random programs over the public API: publishers, subscribers, Managers, PubSubs, outboxes, dedupe
// stores and routers, on a network in memory and under a clock that is not real, and holds a model of the contract
// against what happens.
//
// A seed makes a shape (who there is, how it is configured, which faults it knows) and a list of steps. The steps are
// played by one goroutine, which never waits for the library: every call that can block has a goroutine of its own and
// is timed. When the steps are over, the network heals, everything that is stuck lets go, and what was confirmed has to
// be somewhere.
//
// The program of a seed is always the same; the interleaving of goroutines is not, so that a seed can need several
// tries.
package apisim

import "fmt"

// Violation is a broken invariant of the design.
type Violation struct {
	Invariant int    `json:"inv"`  // its number in the design
	Kind      string `json:"kind"` // what went wrong, in words that are the same for every program
	What      string `json:"what"` // this time
	Step      int    `json:"step"` // the last step that had begun
}

func (v Violation) String() string {
	return fmt.Sprintf("invariant %d: %s: %s (step %d)", v.Invariant, v.Kind, v.What, v.Step)
}

// Result is what a program came to.
type Result struct {
	Seed       uint64      `json:"seed"`
	Steps      int         `json:"steps"`
	Messages   int         `json:"messages"`  // published
	Delivered  int         `json:"delivered"` // to handlers
	Violations []Violation `json:"violations,omitempty"`
	Dirty      bool        `json:"dirty"` // goroutines were left behind
	Millis     int64       `json:"ms"`    // of the clock in the bubble
}
