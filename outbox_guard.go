package buffstreams

import (
	"context"
	"sync"

	"github.com/ThreeDotsLabs/watermill"

	"github.com/buffstreams/watermill-buffstreams/internal/hook"
	"github.com/buffstreams/watermill-buffstreams/store"
)

const nameOutbox = "PublisherConfig.Outbox"

// guardedOutbox is an Outbox of the user's, such that a panic is an error of that call. A method without an error then
// returns what it returned last.
type guardedOutbox struct {
	user   store.Outbox
	logger watermill.LoggerAdapter

	mu      sync.Mutex // guards the fields below
	id      [16]byte
	secret  [16]byte
	epoch   uint64
	streams []store.Stream
	lineage []store.Incarnation
}

// last calls a method that has no error, and returns its result, or the one before, which is at kept.
func last[T any](g *guardedOutbox, kept *T, method func() T) T {
	var result T
	call := func() error { result = method(); return nil }
	err := hook.Call(nameOutbox, call)
	if err != nil { // nothing would make the caller ask again
		err = hook.Call(nameOutbox, call)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if err == nil {
		*kept = result
	} else {
		g.logger.Error("An outbox panicked", err, watermill.LogFields{"provider": provider})
	}
	return *kept
}

// try calls a method that can fail.
func try[T any](method func() (T, error)) (result T, err error) {
	err = hook.Call(nameOutbox, func() (err error) {
		result, err = method()
		return err
	})
	return result, err
}

func (g *guardedOutbox) ID() [16]byte            { return last(g, &g.id, g.user.ID) }
func (g *guardedOutbox) Secret() [16]byte        { return last(g, &g.secret, g.user.Secret) }
func (g *guardedOutbox) Epoch() uint64           { return last(g, &g.epoch, g.user.Epoch) }
func (g *guardedOutbox) Streams() []store.Stream { return last(g, &g.streams, g.user.Streams) }

func (g *guardedOutbox) Lineage() []store.Incarnation { return last(g, &g.lineage, g.user.Lineage) }

func (g *guardedOutbox) Renounce() (bool, error) { return try(g.user.Renounce) }

func (g *guardedOutbox) Forget(ctx context.Context, k store.Key) error {
	return hook.Call(nameOutbox, func() error { return g.user.Forget(ctx, k) })
}

// outboxName is what an outbox calls itself, such as its directory, or empty.
func outboxName(o store.Outbox) (name string) {
	if g, ok := o.(*guardedOutbox); ok {
		o = g.user
	}
	if named, ok := o.(interface{ Name() string }); ok {
		_ = hook.Call(nameOutbox, func() error { name = named.Name(); return nil }) // it is only for a log
	}
	return name
}

func (g *guardedOutbox) NewStreams() <-chan struct{} {
	var none <-chan struct{}
	return last(g, &none, g.user.NewStreams)
}

func (g *guardedOutbox) Err() error {
	return hook.Call(nameOutbox, g.user.Err)
}

func (g *guardedOutbox) Append(ctx context.Context, k store.Key, messages ...[]byte) (uint64, error) {
	return try(func() (uint64, error) { return g.user.Append(ctx, k, messages...) })
}

func (g *guardedOutbox) Drain(ctx context.Context) error {
	return hook.Call(nameOutbox, func() error { return g.user.Drain(ctx) })
}

func (g *guardedOutbox) Acquire(ctx context.Context) (func(), error) {
	release, err := try(func() (func(), error) { return g.user.Acquire(ctx) })
	if err != nil {
		return nil, err
	}
	return func() {
		if err := hook.Call(nameOutbox, func() error { release(); return nil }); err != nil {
			g.logger.Error("An outbox panicked", err, watermill.LogFields{"provider": provider})
		}
	}, nil
}

func (g *guardedOutbox) Read(k store.Key, from uint64, maxBytes int) (store.Batch, error) {
	return try(func() (store.Batch, error) { return g.user.Read(k, from, maxBytes) })
}

func (g *guardedOutbox) Readable(k store.Key, seq uint64) (<-chan struct{}, error) {
	return try(func() (<-chan struct{}, error) { return g.user.Readable(k, seq) })
}

func (g *guardedOutbox) Settle(k store.Key, through uint64, ranges ...store.Range) error {
	return hook.Call(nameOutbox, func() error { return g.user.Settle(k, through, ranges...) })
}
