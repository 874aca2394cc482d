// Package sim runs senders and receivers of the acked protocol in one goroutine under one seed, with every fault that a
// network, a process, a disk or a clock can have, and holds a model of what was promised against what happens.
//
// The sending half is the real session.Client. The receiving half comes through Node: package receiver brings its real
// Receiver, so that only sockets, goroutines and handlers are simulated. An outbox and a DedupeStore are models of
// their contracts: what was synced survives a crash, of the rest anything may.
//
// What the seed decides happens again with the same seed, to the byte: Result.Hash is over all of it.
package sim

import (
	"fmt"
	"runtime/debug"

	"github.com/buffstreams/watermill-buffstreams/internal/dispatch"
	"github.com/buffstreams/watermill-buffstreams/internal/flow"
	"github.com/buffstreams/watermill-buffstreams/internal/session"
)

// StreamID names a stream as a Store knows it.
type StreamID struct {
	Publisher [16]byte
	Stream    uint64
	Topic     string
}

// StreamState is what a Store keeps of a stream.
type StreamState struct {
	Epoch       uint64
	Secret      [16]byte
	Incarnation [16]byte
	Settled     []session.Range
	Groups      map[string][]session.Range
}

// Store is a DedupeStore on a simulated disk.
type Store interface {
	Load(StreamID) (StreamState, bool, error)
	Save(map[StreamID]StreamState) error
	Forget(StreamID) error
}

// NodeConfig sets up one life of a receiver.
type NodeConfig struct {
	Window     flow.Amount // of each topic
	Memory     int         // of all topics, in bytes
	MaxMessage int
	Groups     map[string][]string // declared, by topic
	Store      Store               // nil: nothing survives
}

// Node is one life of a receiver: the code under test. It runs in the caller's goroutine.
type Node interface {
	Topic(name string) *dispatch.Topic
	Accept(Wire) Port
	Drain() // says goodbye to every peer
	Close()
}

// Wire is a Node's end of a connection. Read fails with ErrAgain when nothing more has arrived.
type Wire interface {
	Read([]byte) (int, error)
	Write([]byte) (int, error)
	Close() error
}

// Port is a Node's side of a connection.
type Port interface {
	Read() error // handles what has arrived, until Wire.Read fails
	Flush()      // writes what is due
	End(error)   // the connection is over; the error is what Read returned
}

// NewNode begins a life.
type NewNode func(NodeConfig) Node

// Result is what a run came to.
type Result struct {
	Hash      uint64 // of everything that happened
	Delivered int    // messages, each counted once
	Steps     int
	Seen      Counters // how often things happened
}

// Counters tell what a run went through, by name.
type Counters map[string]int

// Add sums up.
func (c Counters) Add(more Counters) {
	for k, n := range more {
		c[k] += n
	}
}

// Violation is a broken invariant of docs/design.md, or a run that does not come to its end.
type Violation struct {
	Seed  uint64
	Step  int
	Rule  string // the invariant's number and name
	What  string
	Trace []string // the last steps
}

func (v *Violation) Error() string {
	return fmt.Sprintf("seed %d, step %d: %s: %s", v.Seed, v.Step, v.Rule, v.What)
}

// Run plays one seed: faults until enough was published, then everything heals and has to drain. The error is a
// *Violation.
func Run(seed uint64, newNode NewNode) (Result, error) {
	w := newWorld(seed, newNode)
	w.run()
	r := Result{Hash: w.trace.sum, Delivered: w.delivered, Steps: w.step, Seen: w.seen}
	if w.violation != nil {
		return r, w.violation
	}
	return r, nil
}

func (w *world) run() {
	defer func() {
		if p := recover(); p != nil {
			w.fail("panic", "%v\n%s", p, debug.Stack())
		}
	}()
	w.play()
	if w.violation == nil {
		w.heal()
	}
}
