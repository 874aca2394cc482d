package sim

import (
	"fmt"
	"time"

	"github.com/buffstreams/watermill-buffstreams/internal/session"
)

// world is one run.
type world struct {
	seed    uint64
	dice    dice
	trace   trace
	shape   shape
	enc     session.Encoder
	newNode NewNode
	now     time.Time
	step    int
	faults  bool // they may still happen
	seen    Counters

	receivers []*receiver
	slots     []*slot
	procs     []*process // all that run
	conns     []*conn
	seats     []*seat // that are taken

	flows        map[flowKey]*stream
	flowsInOrder []*stream
	messages     []*message // by id, from 1
	published    int
	unpublished  int // of these, those that died with their process before they had a sequence, or in its outbox
	delivered    int

	lastConn, lastProc int
	violation          *Violation
}

type flowKey struct {
	receiver int
	id       StreamID
}

// slot is a publisher through all of its processes.
type slot struct {
	proc *process
	box  *outbox // nil: it has none
}

func newWorld(seed uint64, newNode NewNode) *world {
	w := &world{
		seed: seed, dice: newDice(seed), enc: encoder(), newNode: newNode, now: time.Unix(1_000_000, 0), faults: true,
		seen: Counters{}, flows: map[flowKey]*stream{},
	}
	w.shape = newShape(w.dice)
	for i := range w.dice.between(1, 2) {
		r := w.newReceiver(i)
		w.receivers = append(w.receivers, r)
		w.start(r)
	}
	for i := range w.shape.slots {
		s := &slot{}
		if i < w.shape.boxes {
			s.box = w.newOutbox()
		}
		w.slots = append(w.slots, s)
		w.employ(s)
	}
	return w
}

// employ starts a process in a slot.
func (w *world) employ(s *slot) {
	s.proc = w.newProcess()
	if s.box != nil {
		s.box.open(s.proc)
	}
}

func (w *world) note(kind string, a, b, c int) { w.trace.add(w.step, "", kind, a, b, c) }

// fail ends the run. Only the first violation counts.
func (w *world) fail(rule, format string, args ...any) {
	if w.violation == nil {
		w.violation = &Violation{
			Seed: w.seed, Step: w.step, Rule: rule, What: fmt.Sprintf(format, args...), Trace: w.trace.tail(),
		}
	}
}

func (w *world) newFlow(to *receiver, id StreamID, secret [16]byte) *stream {
	f := &stream{n: len(w.flowsInOrder), id: id, secret: secret, to: to}
	w.flows[flowKey{to.n, id}] = f
	w.flowsInOrder = append(w.flowsInOrder, f)
	return f
}

func (w *world) newMessage() *message {
	d, s := w.dice, &w.shape
	w.published++
	m := &message{id: uint64(len(w.messages)) + 1, key: d.n(len(keyNames)), toxic: d.chance(s.toxic)}
	switch n := d.n(200); {
	case n == 0 && s.huge:
		m.size = d.between(2001, 80_000) // more than receivers take
	case n < 10:
		m.size = d.between(8, s.large)
	default:
		m.size = d.between(8, s.small)
	}
	w.messages = append(w.messages, m)
	return m
}

func (w *world) byID(id uint64) *message {
	if id == 0 || id > uint64(len(w.messages)) {
		return nil
	}
	return w.messages[id-1]
}

// play does random things until enough was published.
func (w *world) play() {
	for w.violation == nil && w.step < w.shape.steps && !w.enough() {
		w.step++
		w.now = w.now.Add(time.Duration(w.dice.n(4)) * time.Millisecond)
		w.once()
		w.settle()
	}
}

// enough tells that all was published and most of it handled.
func (w *world) enough() bool {
	return w.published-w.unpublished >= w.shape.target && w.delivered >= w.shape.target*9/10
}
