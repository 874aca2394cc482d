package receiver

import (
	"context"

	"github.com/buffstreams/watermill-buffstreams/internal/hook"
	"github.com/buffstreams/watermill-buffstreams/store"
)

// guardedStore is a DedupeStore of the user's, such that a panic is an error, and that a method which does not return is
// left behind when ctx is done.
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
	_, err := hook.CallWithin(g.ctx, storeName, func() (struct{}, error) { return struct{}{}, g.user.Save(states) }, nil)
	return err
}

func (g guardedStore) Forget(id store.StreamID) error {
	_, err := hook.CallWithin(g.ctx, storeName, func() (struct{}, error) { return struct{}{}, g.user.Forget(id) }, nil)
	return err
}
