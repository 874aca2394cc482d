package buffstreams

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/hook"
	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
	"github.com/buffstreams/watermill-buffstreams/store"
)

// brittleOutbox is an outbox of which so many calls panic.
type brittleOutbox struct {
	store.Outbox
	id     byte
	panics int
}

func (o *brittleOutbox) call() {
	if o.panics > 0 {
		o.panics--
		panic("no")
	}
}

func (o *brittleOutbox) ID() [16]byte { o.call(); return [16]byte{o.id} }
func (o *brittleOutbox) Name() string { o.call(); return "named" }

func (o *brittleOutbox) Acquire(context.Context) (func(), error) { o.call(); return o.call, nil }

func (o *brittleOutbox) Place(store.Key) store.Place { o.call(); return store.Place{Address: "a"} }

func (o *brittleOutbox) SetPlace(context.Context, store.Key, store.Place) error { o.call(); return nil }

// TestGuardedOutbox_PanicsAreErrors of one call; a method that has none is asked again, and answers as it did last.
func TestGuardedOutbox_PanicsAreErrors(t *testing.T) {
	log, o := testkit.NewLog(), &brittleOutbox{id: 1}
	g := &guardedOutbox{user: o, logger: log}
	require.Equal(t, [16]byte{1}, g.ID())
	o.id, o.panics = 2, 1
	require.Equal(t, [16]byte{2}, g.ID(), "the second time it answers")
	require.Empty(t, log.Lines)
	o.id, o.panics = 3, 2
	require.Equal(t, [16]byte{2}, g.ID())
	requirePanic := func() {
		t.Helper()
		require.Len(t, log.Lines, 1)
		line := <-log.Lines
		require.Equal(t, "An outbox panicked", line.Msg)
		require.ErrorAs(t, line.Err, new(*hook.PanicError))
	}
	requirePanic()

	o.panics = 1
	_, err := g.Acquire(t.Context())
	require.ErrorAs(t, err, new(*hook.PanicError))
	release, err := g.Acquire(t.Context())
	require.NoError(t, err)
	o.panics = 1
	release()
	requirePanic()
	release()
	require.Empty(t, log.Lines)

	o.panics = 1
	require.Empty(t, outboxName(g), "it is only for a log")
	require.Equal(t, "named", outboxName(g))
	placer := placerOf(g)
	o.panics = 1
	require.Zero(t, placer.Place(store.Key{}), "it begins anywhere")
	require.Equal(t, "a", placer.Place(store.Key{}).Address)
	o.panics = 1
	require.ErrorAs(t, placer.SetPlace(t.Context(), store.Key{}, store.Place{}), new(*hook.PanicError))
	require.Nil(t, placerOf(&guardedOutbox{user: appendFunc{}}))
	require.Empty(t, log.Lines)
}
