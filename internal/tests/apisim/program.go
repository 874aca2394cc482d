package apisim

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// Op is what a step does.
type Op string

// The operations. Their numbers are taken modulo what there is, so that a step makes sense whatever steps were removed.
const (
	opPublish       Op = "publish"        // A publisher, B topic, N messages, C size and mood
	opFlush         Op = "flush"          // A publisher, C milliseconds
	opDrain         Op = "drain"          // A publisher, C milliseconds
	opClosePub      Op = "close-pub"      // A publisher, N calls side by side
	opCloseSender   Op = "close-sender"   // A sender: its publishers, then its Manager, N calls of that side by side
	opKillSender    Op = "kill-sender"    // A sender; C odd: silently
	opReviveSender  Op = "revive-sender"  // A sender that ended comes back with its files
	opCopyBox       Op = "copy-box"       // A sender: its outbox's directory is kept; an earlier copy is put back at the next revival
	opSubscribe     Op = "subscribe"      // A subscriber, B topic, C mood
	opInitialize    Op = "initialize"     // A subscriber, B topic
	opCancel        Op = "cancel"         // A subscription
	opDropGroup     Op = "drop-group"     // A subscriber, B topic
	opCloseSub      Op = "close-sub"      // A subscriber, N calls side by side
	opCloseRouter   Op = "close-router"   // A receiver
	opCloseReceiver Op = "close-receiver" // A receiver: C odd its subscribers first, then its Manager, N calls of that side by side
	opKillReceiver  Op = "kill-receiver"  // A receiver; C odd: silently
	opRevive        Op = "revive"         // A receiver that ended comes back with its files and its subscriptions
	opCut           Op = "cut"            // A receiver's connections are reset
	opHole          Op = "hole"           // A receiver's address is a black hole, or is not any more
	opRefuse        Op = "refuse"         // A receiver's address refuses, or does not any more
	opRoute         Op = "route"          // the logical topic leads to receiver A from now on
	opGate          Op = "gate"           // callbacks of the kind A block, or go on
	opFail          Op = "fail"           // callbacks of the kind A fail, or do not any more
	opChurn         Op = "churn"          // N addresses come for one message each, and go
	opLowerLimit    Op = "lower-limit"    // A receiver has a smaller MaxMessageSize from its next life on
	opSwap          Op = "swap"           // A subscription ends, and one of its Subscriber begins in the same moment; C mood
	opCancelKill    Op = "cancel-kill"    // A subscription ends, and with its channel the process, as kill -9 does
	opWait          Op = "wait"

	opLeave Op = "leave" // receiver A leaves the route
	opCome  Op = "come"  // receiver A comes back to the route
	opMute  Op = "mute"  // receiver A's address accepts and says nothing, or is well again
)

// Step is one step of a program.
type Step struct {
	ID      int // of its own randomness; stays when others are removed
	Op      Op
	A, B, C int
	N       int
	Wait    time.Duration // before it
}

func (s Step) String() string {
	return fmt.Sprintf("%d +%v %s A%d B%d C%d N%d", s.ID, s.Wait, s.Op, s.A, s.B, s.C, s.N)
}

// Program is a shape and what is done with it.
type Program struct {
	Seed  uint64
	Shape Shape
	Steps []Step
}

// Generate makes the program of a seed. From movesFrom on it is one with moves.
func Generate(seed uint64) Program {
	r := rand.New(rand.NewPCG(seed, 0x61706973696d))
	p := Program{Seed: seed}
	g := generator{r, &p.Shape, nil}
	if seed >= movesFrom {
		p.Shape = newMovesShape(r)
		g.runMoves()
	} else {
		p.Shape = newShape(r)
		g.run()
	}
	p.Steps = g.steps
	if seed >= movesFrom && isDense(seed) {
		p.thicken()
	}
	return p
}

// Keep removes the steps whose ids are not listed.
func (p Program) Keep(ids []int) Program {
	var kept []Step
	for _, s := range p.Steps {
		if slices.Contains(ids, s.ID) {
			kept = append(kept, s)
		}
	}
	p.Steps = kept
	return p
}

// IDs are the ids of the steps.
func (p Program) IDs() []int {
	ids := []int{} // nil would mean all
	for _, s := range p.Steps {
		ids = append(ids, s.ID)
	}
	return ids
}

// Ops is a program in one line.
func (p Program) Ops() string {
	var ops []string
	for _, s := range p.Steps {
		ops = append(ops, string(s.Op))
	}
	return strings.Join(ops, " ")
}
