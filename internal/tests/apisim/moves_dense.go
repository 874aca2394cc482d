package apisim

import (
	"math/rand/v2"
	"slices"
	"time"
)

// denseSalt makes half of the programs with moves dense; the seeds of movesLookedFor that were found before there were
// any are others.
const denseSalt = 0x64656e779d

// isDense reports whether the messages of a program with moves come just before something happens to a host, so that
// they are under way then.
func isDense(seed uint64) bool { return rand.New(rand.NewPCG(seed, denseSalt)).IntN(2) == 0 }

// thicken makes a program dense. The steps that it has keep their ids, and so their randomness.
func (p *Program) thicken() {
	r := rand.New(rand.NewPCG(p.Seed, denseSalt+1))
	m := &p.Shape.Moves
	m.Prompt = m.Prompt && chance(r, 40) // what slow handlers have is under way for longer
	if chance(r, 25) {
		m.Prompt, m.Brisk, m.Nacks = false, false, true
	}
	for i := range p.Shape.Senders {
		s := &p.Shape.Senders[i]
		if len(s.Pubs) == 1 && chance(r, 30) {
			s.Outbox, s.Pubs[0].Confirm = true, 0
		}
	}
	if chance(r, 35) { // nothing fails: hosts only leave the route and come back
		p.Shape.Faults, p.Shape.Kills, m.Mute, m.Routes, m.Watch = false, false, false, true, m.Watch || chance(r, 60)
		for i := range p.Steps {
			if slices.Contains([]Op{opCloseReceiver, opKillReceiver, opHole, opCut, opRefuse, opMute, opKillSender}, p.Steps[i].Op) {
				p.Steps[i].Op = pick(r, opLeave, opCome)
			}
		}
	}
	next := len(p.Steps)
	step := func(op Op, n int, wait time.Duration) Step {
		next++
		return Step{ID: next - 1, Op: op, A: r.IntN(1000), B: r.IntN(1000), C: r.IntN(1000), N: n, Wait: wait}
	}
	soon := func() time.Duration {
		return pick(r, 0, time.Millisecond, 5*time.Millisecond, 20*time.Millisecond, 50*time.Millisecond)
	}
	var steps []Step
	for _, s := range p.Steps {
		happens := slices.Contains([]Op{opLeave, opCome, opCloseReceiver, opKillReceiver, opHole, opCut, opRefuse, opMute, opKillSender, opCloseSender, opClosePub}, s.Op)
		if happens && chance(r, 70) {
			steps = append(steps, step(opPublish, pick(r, 3, 10, 30, 30), s.Wait))
			s.Wait = soon()
		}
		steps = append(steps, s)
		if happens && chance(r, 40) {
			steps = append(steps, step(opPublish, pick(r, 1, 3, 10), soon()))
		}
		if happens && m.MoveAfter > 0 && chance(r, 35) { // it lasts for longer than hosts are waited for
			steps = append(steps, step(opWait, 1, m.MoveAfter+4*time.Second))
		}
		if happens && chance(r, 20) { // and something else while that goes on
			steps = append(steps, step(pick(r, opLeave, opCome, opRevive, opRevive, opReviveSender), 1, soon()))
		}
	}
	if chance(r, 50) {
		steps = p.spare(r, steps)
	}
	if !m.Routes { // they know no routes that change
		steps = slices.DeleteFunc(steps, func(s Step) bool { return s.Op == opLeave || s.Op == opCome })
	}
	p.Steps = steps
}

// spare leaves one host of each group of the route alone, and mostly the route too: Publish has to get on whatever
// happens to the others.
func (p *Program) spare(r *rand.Rand, steps []Step) []Step {
	n, spared := len(p.Shape.Receivers), 1
	switch p.Shape.Moves.Policy {
	case toAll:
		return steps
	case toGroups, toHashed:
		spared = 2
	}
	if n <= spared {
		return steps
	}
	if p.Shape.Faults || p.Shape.Kills {
		p.Shape.Faults = true
		strict := chance(r, 60) // Publish is held to its time
		if strict {
			steps = slices.DeleteFunc(steps, func(s Step) bool { return s.Op == opCancel || s.Op == opSubscribe }) // whose mood is any
			p.Shape.Moves.Prompt, p.Shape.Moves.Brisk, p.Shape.Moves.Nacks, p.Shape.Tight = true, true, false, false
			for i := range p.Shape.Senders {
				for k := range p.Shape.Senders[i].Pubs {
					p.Shape.Senders[i].Pubs[k].PublishTimeout = 30 * time.Second
				}
			}
		}
		var more []Step
		for _, s := range steps {
			if slices.Contains([]Op{opCloseReceiver, opKillReceiver, opCut, opRefuse}, s.Op) && chance(r, 40) {
				s.Op = opHole
			}
			switch {
			case s.Op != opHole || p.Shape.Moves.MoveAfter < 0:
				more = append(more, s)
			case strict: // what is sent in that moment
				before := Step{ID: 2000 + s.ID, Op: opPublish, A: s.B, C: s.C, N: 10, Wait: s.Wait}
				s.Wait = 0
				after := Step{ID: 3000 + s.ID, Op: opPublish, A: s.B + 1, C: s.C, N: 3}
				more = append(more, before, s, after, Step{ID: 1000 + s.ID, Op: opWait, N: 1, Wait: p.Shape.Moves.MoveAfter + 4*time.Second})
			default:
				if more = append(more, s); chance(r, 50) {
					more = append(more, Step{ID: 1000 + s.ID, Op: opWait, N: 1, Wait: p.Shape.Moves.MoveAfter + 4*time.Second})
				}
			}
		}
		steps = more
	}
	for i := range steps {
		if slices.Contains([]Op{opLeave, opCome, opCloseReceiver, opKillReceiver, opHole, opCut, opRefuse, opMute, opRevive}, steps[i].Op) {
			steps[i].A = spared + steps[i].A%(n-spared)
		}
	}
	if p.Shape.Moves.Routes && (p.Shape.Faults || p.Shape.Kills) {
		p.Shape.Moves.Routes = chance(r, 30)
	}
	return steps
}
