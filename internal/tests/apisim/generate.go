package apisim

import (
	"math/rand/v2"
	"time"
)

type generator struct {
	*rand.Rand
	s     *Shape
	steps []Step
}

func (g *generator) add(op Op, n int) {
	wait := pick(g.Rand, 0, 0, time.Millisecond, 20*time.Millisecond, 100*time.Millisecond, 300*time.Millisecond)
	if chance(g.Rand, 6) {
		wait = time.Duration(1+g.IntN(8)) * time.Second
	}
	g.steps = append(g.steps, Step{
		ID: len(g.steps), Op: op, A: g.IntN(1000), B: g.IntN(1000), C: g.IntN(1000), N: n, Wait: wait,
	})
}

// run makes the steps: subscriptions first, mostly, then whatever the shape knows.
func (g *generator) run() {
	for range 1 + g.IntN(4) {
		g.add(opSubscribe, 1)
	}
	g.choose(g.weights(), 4+g.IntN(26))
}

// choose adds n steps.
func (g *generator) choose(weights []weighted, n int) {
	total := 0
	for _, w := range weights {
		total += w.weight
	}
	for range n {
		n := g.IntN(total)
		for _, w := range weights {
			if n -= w.weight; n < 0 {
				g.add(w.op, w.n(g.Rand))
				break
			}
		}
	}
}

type weighted struct {
	op     Op
	weight int
	n      func(*rand.Rand) int
}

func one(*rand.Rand) int { return 1 }

// calls is how many calls are made side by side.
func calls(r *rand.Rand) int { return pick(r, 1, 1, 1, 2) }

func many(r *rand.Rand) int { return pick(r, 1, 1, 3, 10, 30) }

func (g *generator) weights() []weighted {
	s := g.s
	all := []weighted{
		{opPublish, 30, many}, {opSubscribe, 6, one}, {opFlush, 2, one}, {opDrain, 1, one}, {opWait, 3, one},
	}
	when := func(on bool, more ...weighted) {
		if on {
			all = append(all, more...)
		}
	}
	when(s.Closes, weighted{opClosePub, 4, calls}, weighted{opCloseSender, 3, calls}, weighted{opReviveSender, 3, one},
		weighted{opCancel, 3, one}, weighted{opCloseSub, 3, calls}, weighted{opCloseRouter, 2, one},
		weighted{opCloseReceiver, 3, calls}, weighted{opRevive, 4, one})
	when(s.Kills, weighted{opKillReceiver, 4, one}, weighted{opCancelKill, 3, one}, weighted{opClosePub, 2, calls}, weighted{opCloseSender, 2, calls}, weighted{opRevive, 5, one}, weighted{opKillSender, 2, one},
		weighted{opReviveSender, 3, one}, weighted{opCopyBox, 1, one})
	when(s.Groups, weighted{opSubscribe, 8, one}, weighted{opInitialize, 3, one}, weighted{opCancel, 8, one},
		weighted{opDropGroup, 4, one})
	when(s.Faults, weighted{opCut, 6, one}, weighted{opHole, 4, one}, weighted{opRefuse, 3, one})
	when(s.Blocks, weighted{opGate, 6, one})
	when(s.Fails, weighted{opFail, 6, one})
	when(s.Routes, weighted{opRoute, 6, one})
	when(s.Limits, weighted{opLowerLimit, 3, one}, weighted{opCloseReceiver, 2, one}, weighted{opKillReceiver, 2, one}, weighted{opRevive, 6, one})
	when(s.Swaps, weighted{opSwap, 10, one}, weighted{opCancel, 3, one})
	when(s.Copies, weighted{opCopyBox, 3, one}, weighted{opCloseSender, 3, one}, weighted{opKillSender, 2, one}, weighted{opReviveSender, 6, one})
	when(s.Tight, weighted{opInitialize, 4, one})
	when(s.Churn, weighted{opChurn, 3, func(r *rand.Rand) int { return 10 + r.IntN(20) }})
	return all
}
