package apisim

import (
	"math/rand/v2"
	"time"
)

// movesFrom is the first seed of the programs with moves: one route of several hosts, and what happens to these.
const movesFrom uint64 = 1_000_000_000

// policy is how a route picks hosts.
type policy int

const (
	failover policy = iota
	roundRobin
	leastPending
	hashed
	toAll     // every host
	toGroups  // every one of two groups of hosts, and in each of them the least pending one
	toHashed  // the same, by hash
	nPolicies // their number
)

func (p policy) String() string {
	return [...]string{"Failover", "RoundRobin", "LeastPending", "Hash", "All", "All with groups", "All with groups by Hash"}[p]
}

// keyed reports whether a key's messages stay together.
func (p policy) keyed() bool { return p == hashed || p == toHashed }

// waits reports whether what goes to a host that is connected and gives no credit waits for it: another has not its
// place.
func (p policy) waits() bool { return p == failover || p.keyed() }

// movesPlan is the route of a program with moves.
type movesPlan struct {
	On        bool
	Policy    policy
	MoveAfter time.Duration // negative: never
	Watch     bool          // the Resolver tells of changes itself
	Prompt    bool          // all handlers are
	Brisk     bool          // all are prompt, or slow, which is far less than MoveAfter
	Nacks     bool          // most handlers nack
	StayAway  bool          // what is dead when the faults end stays dead, if another host has its place
	Routes    bool          // hosts leave the route and come back
	Mute      bool          // hosts accept and never greet
}

// newMovesShape makes the shape of a program with moves.
func newMovesShape(r *rand.Rand) Shape {
	s := Shape{
		Latency: pick(r, 100*time.Microsecond, time.Millisecond, 10*time.Millisecond), Room: pick(r, 4<<10, 64<<10), Topics: 1,
		Tight: chance(r, 10), Abrupt: chance(r, 20), Faults: chance(r, 40), Kills: chance(r, 50), Closes: chance(r, 60),
		SlowStore: chance(r, 30),
		Moves: movesPlan{
			On: true, Policy: policy(r.IntN(int(nPolicies))), Watch: chance(r, 50), Prompt: chance(r, 60), StayAway: chance(r, 50),
			Routes: chance(r, 50), Mute: chance(r, 20),
			MoveAfter: pick(r, 500*time.Millisecond, 2*time.Second, 5*time.Second, 5*time.Second),
		},
	}
	s.Moves.Brisk = s.Moves.Prompt || chance(r, 50)
	if chance(r, 8) {
		s.Moves.MoveAfter, s.Moves.StayAway = -1, false
	}
	groups := pick(r, 1, 1, 2)
	inFlight, keyed := pick(r, 1, 1, 2, 8), chance(r, 40)
	for range 2 + r.IntN(3) {
		p := receiverPlan{Kind: pick(r, private, shared, shared), Declared: true, Dedupe: chance(r, 10)}
		if groups == 2 {
			p.Kind = shared
		}
		for g := range groups {
			p.Subs = append(p.Subs, subscriberPlan{
				Group: "g" + string(rune('0'+g)), InFlight: inFlight, Key: keyed,
				CloseTimeout: pick(r, 100*time.Millisecond, time.Second, 3*time.Second),
			})
		}
		s.Receivers = append(s.Receivers, p)
	}
	for range 1 + r.IntN(2) {
		p := senderPlan{Shared: chance(r, 50), With: -1, Outbox: chance(r, 20)}
		for range 1 + r.IntN(2) {
			pub := publisherPlan{
				Confirm: pick(r, 0, 0, 1, 2), PublishTimeout: pick(r, 3*time.Second, 30*time.Second, 30*time.Second),
				CloseTimeout: pick(r, 200*time.Millisecond, time.Second, 3*time.Second), Logical: true,
			}
			if p.Outbox {
				pub.Confirm = 0
			}
			p.Pubs = append(p.Pubs, pub)
			if p.Outbox {
				break
			}
		}
		s.Senders = append(s.Senders, p)
	}
	return s
}

// movesWeights are the steps of a program with moves.
func (g *generator) movesWeights() []weighted {
	s := g.s
	all := []weighted{{opPublish, 40, many}, {opFlush, 2, one}, {opDrain, 1, one}, {opWait, 5, one}, {opRevive, 8, one}}
	when := func(on bool, more ...weighted) {
		if on {
			all = append(all, more...)
		}
	}
	when(s.Moves.Routes, weighted{opLeave, 5, one}, weighted{opCome, 6, one})
	when(s.Moves.Mute, weighted{opMute, 5, one})
	when(s.Closes, weighted{opCloseReceiver, 8, calls}, weighted{opClosePub, 1, calls}, weighted{opCloseSender, 1, calls}, weighted{opReviveSender, 2, one})
	when(s.Closes && !s.Moves.Brisk, weighted{opCancel, 3, one}, weighted{opSubscribe, 6, one})
	when(s.Kills, weighted{opKillReceiver, 8, one}, weighted{opKillSender, 1, one}, weighted{opReviveSender, 2, one})
	when(s.Faults, weighted{opCut, 5, one}, weighted{opHole, 6, one}, weighted{opRefuse, 3, one})
	return all
}

// runMoves makes the steps of a program with moves.
func (g *generator) runMoves() { g.choose(g.movesWeights(), 8+g.IntN(28)) }
