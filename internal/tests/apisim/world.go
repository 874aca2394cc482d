package apisim

import (
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"time"
)

// world is one run of a program.
type world struct {
	p     Program
	net   *network
	began time.Time
	built time.Time // everybody was there
	dir   string    // of the outboxes

	receivers []*receiver
	senders   []*sender
	tame      chan struct{} // closed: handlers ack from now on
	healed    bool          // the driver's: the steps are over
	faults    bool          // of the network happened
	disturbed bool          // a fault, a kill or a failing callback happened
	drained   time.Time     // when everything was to have drained; zero if it never was

	mu         sync.Mutex
	step       int
	messages   []*msg
	violations []Violation
	trace      io.Writer      // or nil
	calls      map[*call]bool // that have not returned
	gates      map[string]chan struct{}
	failing    map[string]bool
	gibberish  bool                 // unmarshaling has failed for a while
	gated      map[string]time.Time // the gates that were ever closed, and until when
	untold     int                  // messages of which a Close said that a hook did not get them
	routes     *routeState          // of a program with moves, or nil
	route      int                  // the receiver that the logical topic leads to
	rerouted   bool                 // it has led to others
	moved      time.Time            // when a publisher asked last, since then
	subs       []*subscription
	delivered  int
	again      int            // messages that OnFailure hooks published
	visitors   int            // addresses that came to go
	churned    int            // those that had their message and are gone
	firsts     map[string]int // of the last first delivery of a lane to a group in a life, the seq
}

func newWorld(p Program, dir string, trace io.Writer) *world {
	return &world{
		p: p, dir: dir, trace: trace, net: newNetwork(p.Shape.Latency, p.Shape.Room), began: time.Now(), tame: make(chan struct{}),
		calls: map[*call]bool{}, gates: map[string]chan struct{}{}, failing: map[string]bool{}, gated: map[string]time.Time{}, firsts: map[string]int{},
	}
}

// note adds a line to the trace.
func (w *world) note(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.noteLocked(format, args...)
}

func (w *world) noteLocked(format string, args ...any) {
	if w.trace != nil { // as it happens: the process may be about to end
		_, _ = fmt.Fprintf(w.trace, "%3d %9.4fs  %s\n", w.step, time.Since(w.began).Seconds(), fmt.Sprintf(format, args...))
	}
}

// violated notes a broken invariant; of each kind the first counts.
func (w *world) violated(invariant int, kind, format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.violatedLocked(invariant, kind, format, args...)
}

func (w *world) violatedLocked(invariant int, kind, format string, args ...any) {
	for _, v := range w.violations {
		if v.Kind == kind {
			return
		}
	}
	what := fmt.Sprintf(format, args...)
	w.noteLocked("VIOLATION of %d: %s: %s", invariant, kind, what)
	w.violations = append(w.violations, Violation{Invariant: invariant, Kind: kind, What: what, Step: w.step})
}

// random is a step's own randomness, whatever steps were removed.
func (w *world) random(parts ...int) *rand.Rand {
	h := w.p.Seed
	for _, p := range parts {
		h = h*0x9e3779b97f4a7c15 + uint64(p) + 1
	}
	return rand.New(rand.NewPCG(w.p.Seed, h))
}

// gateKinds and failKinds are the callbacks that can block, and fail, for a while.
var (
	gateKinds = []string{"resolve", "onfailure", "subfailure", "deadletter", "dedupe", "dial"}
	failKinds = []string{"marshal", "unmarshal", "resolve", "deadletter", "dedupe", "dial", "listen"}
)

// callback is called by every callback of the user's. It blocks while its gate is closed, and reports whether to fail.
func (w *world) callback(kind string) (fails bool) {
	w.mu.Lock()
	gate := w.gates[kind]
	w.mu.Unlock()
	if gate != nil {
		<-gate
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.failing[kind]
}

// toggleGate closes or opens a gate.
func (w *world) toggleGate(kind string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if gate := w.gates[kind]; gate != nil {
		close(gate)
		delete(w.gates, kind)
		w.gated[kind] = time.Now()
		return
	}
	w.gates[kind] = make(chan struct{})
	w.gated[kind] = time.Time{}
}

// calm opens all gates and ends all failures.
func (w *world) calm() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for kind, gate := range w.gates {
		close(gate)
		delete(w.gates, kind)
		w.gated[kind] = time.Now()
	}
	clear(w.failing)
}

// rude reports whether the callback that misbehaves does so for a message.
func (w *world) rude(way rude, id int) bool { return w.p.Shape.Rude == way && id%4 == 1 }

func (w *world) address(r int) string { return fmt.Sprintf("127.0.0.1:%d", 7000+r) }

func (w *world) addresses() (all []string) {
	for r := range w.receivers {
		all = append(all, w.address(r))
	}
	return append(all, hogAddress)
}
