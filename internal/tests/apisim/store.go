package apisim

import (
	"errors"
	"sync/atomic"
	"time"
)

// memStore is a DedupeStore whose content outlives processes.
type memStore struct {
	w      *world
	states map[streamID]streamState
}

// storeView is the store as one life of a process has it.
type storeView struct {
	of     *memStore
	proc   *process
	saving atomic.Int32
	failed atomic.Bool // a Save has failed
	since  int         // first deliveries since then; the world's mu guards it
}

func (v *storeView) Load(id streamID) (streamState, bool, error) {
	if v.of.w.callback("dedupe") {
		return streamState{}, false, errors.New("apisim: the store fails")
	}
	v.of.w.mu.Lock()
	defer v.of.w.mu.Unlock()
	s, ok := v.of.states[id]
	return s, ok, nil
}

func (v *storeView) Save(states map[streamID]streamState) error {
	w := v.of.w
	if v.saving.Add(1) > 1 {
		w.violated(3, "Save of a DedupeStore is called by two goroutines at a time", "%s", v.proc.name)
	}
	defer v.saving.Add(-1)
	if fails := w.callback("dedupe"); fails || v.proc.dead.Load() {
		v.failed.Store(true)
		return errors.New("apisim: the store fails")
	}
	if w.p.Shape.SlowStore {
		time.Sleep(2 * time.Millisecond)
	}
	if w.rude("dedupe-panics", 1) && w.random(len(states)).IntN(4) == 0 {
		v.failed.Store(true)
		panic("apisim: dedupe store")
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for id, s := range states {
		if old, ok := v.of.states[id]; ok && old.Epoch == s.Epoch {
			for _, r := range old.Settled {
				if !covered(s.Settled, r) {
					w.violatedLocked(3, "a Save of a DedupeStore has less than the one before", "%v and then %v", old.Settled, s.Settled)
				}
			}
		}
		v.of.states[id] = s
	}
	return nil
}

func (v *storeView) Forget(id streamID) error {
	if v.of.w.callback("dedupe") {
		return errors.New("apisim: the store fails")
	}
	v.of.w.mu.Lock()
	defer v.of.w.mu.Unlock()
	delete(v.of.states, id)
	return nil
}

func covered(all []streamRange, r streamRange) bool {
	for _, x := range all {
		if x.First <= r.First && r.Last <= x.Last {
			return true
		}
	}
	return false
}
