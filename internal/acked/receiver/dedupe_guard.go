package receiver

import (
	"context"
	"reflect"
	"sync"

	"github.com/buffstreams/watermill-buffstreams/internal/hook"
	"github.com/buffstreams/watermill-buffstreams/store"
)

// guardedStore is a DedupeStore of the user's, such that a panic is an error, and that a method which does not return
// is left behind when ctx is done.
type guardedStore struct {
	user store.DedupeStore
	ctx  context.Context
}

const storeName = "AckedConfig.Dedupe"

type loaded struct {
	state store.StreamState
	known bool
}

func (g guardedStore) Load(id store.StreamID) (store.StreamState, bool, error) {
	l, err := hook.CallWithin(g.ctx, storeName, func() (l loaded, err error) {
		l.state, l.known, err = g.user.Load(id)
		return l, err
	}, nil)
	return l.state, l.known, err
}

func (g guardedStore) Save(states map[store.StreamID]store.StreamState) error {
	return g.inTurn(func() error { return g.user.Save(states) })
}

func (g guardedStore) Forget(id store.StreamID) error {
	return g.inTurn(func() error { return g.user.Forget(id) })
}

// inTurn calls the store when no other listener does. A call that was left behind before its turn is not made: what it
// would save may be older than what another listener has saved since.
func (g guardedStore) inTurn(call func() error) error {
	_, err := hook.CallWithin(g.ctx, storeName, func() (struct{}, error) {
		turn := takeTurn(g.user)
		defer turn.end()
		if err := g.ctx.Err(); err != nil {
			return struct{}{}, err
		}
		return struct{}{}, call()
	}, nil)
	return err
}

// storeTurns are the calls of Save and Forget of one store, by all listeners of the process: one at a time.
type storeTurns struct {
	store store.DedupeStore // nil: it is not shared
	turn  chan struct{}     // capacity 1: holds a value during a call
	calls int               // under way, or waiting; guarded by allTurns.mu
}

// allTurns has the turns of all stores that are called now.
var allTurns struct {
	mu     sync.Mutex // guards stores
	stores map[store.DedupeStore]*storeTurns
}

// takeTurn waits until no other call of a store is under way. The caller must call end.
func takeTurn(s store.DedupeStore) *storeTurns {
	t := turnsOf(s)
	t.turn <- struct{}{}
	return t
}

func turnsOf(s store.DedupeStore) *storeTurns {
	if !reflect.ValueOf(s).Comparable() { // it can be of no other listener
		return &storeTurns{turn: make(chan struct{}, 1)}
	}
	allTurns.mu.Lock()
	defer allTurns.mu.Unlock()
	t := allTurns.stores[s]
	if t == nil {
		if allTurns.stores == nil {
			allTurns.stores = map[store.DedupeStore]*storeTurns{}
		}
		t = &storeTurns{store: s, turn: make(chan struct{}, 1)}
		allTurns.stores[s] = t
	}
	t.calls++
	return t
}

func (t *storeTurns) end() {
	<-t.turn
	if t.store == nil {
		return
	}
	allTurns.mu.Lock()
	defer allTurns.mu.Unlock()
	if t.calls--; t.calls == 0 {
		delete(allTurns.stores, t.store)
	}
}
