package sim

import (
	"errors"

	"github.com/buffstreams/watermill-buffstreams/internal/session"
)

var (
	errKilled = errors.New("sim: the process died here")
	errDisk   = errors.New("sim: the disk failed")
)

// store is a DedupeStore as its contract describes it: what Save returned for is durable; where the process dies in it,
// all of it is or nothing. It outlives its receiver's lives.
type store struct {
	w       *world
	recv    *receiver
	durable map[StreamID]*stored
	last    lookup // the last Load
}

type stored struct {
	state StreamState
	marks session.Watermark
}

// lookup is what a Load said.
type lookup struct {
	called bool
	state  StreamState
	known  bool
	err    error
}

func (s *store) Load(id StreamID) (StreamState, bool, error) {
	s.last = lookup{called: true}
	if s.w.faults && s.w.dice.chance(s.w.shape.loadFails) {
		s.last.err = errDisk
		s.w.seen["store loads failed"]++
		return StreamState{}, false, errDisk
	}
	if d := s.durable[id]; d != nil {
		s.last.state, s.last.known = d.state, true
	}
	return s.last.state, s.last.known, nil
}

func (s *store) Save(states map[StreamID]StreamState) error {
	if l := s.recv.life; s.w.faults && s.w.dice.chance(s.w.shape.saveFails) {
		err := errKilled
		if s.w.dice.chance(300) {
			err = errDisk
		} else {
			l.killed = true
		}
		l.broken = true
		if s.w.dice.chance(500) {
			s.apply(states)
		}
		s.w.seen["store saves interrupted"]++
		return err
	}
	s.apply(states)
	return nil
}

func (s *store) apply(states map[StreamID]StreamState) {
	for id, state := range states { // one, as there is one goroutine
		d := &stored{state: state}
		for _, r := range state.Settled {
			d.marks.Add(r.First, r.Last)
		}
		s.durable[id] = d
	}
}

func (s *store) Forget(id StreamID) error {
	delete(s.durable, id)
	return nil
}

// has tells whether it is durable that a message was settled.
func (s *store) has(id StreamID, seq uint64) bool {
	d := s.durable[id]
	return d != nil && d.marks.Has(seq)
}
