package outbox

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/hooks"
	"github.com/buffstreams/watermill-buffstreams/store"
)

// recoveries is a hook that notes how Open has ended.
type recoveries struct{ all []hooks.OutboxRecovered }

func (r *recoveries) OnOutboxRecovered(e hooks.OutboxRecovered) {
	r.all = append(r.all, e)
	panic("a hook's panic is ignored")
}

// A hook is told of each Open: what is pending, or why it failed.
func TestHooks_AreToldOfEachOpen(t *testing.T) {
	d := newMemDisk(1)
	cfg, watcher := d.config(), &recoveries{}
	cfg.Hooks = []hooks.Hook{watcher}
	o := open(t, cfg)
	fill(t, o, orders, 1, 3, 1)
	pending := o.Stats().Bytes
	require.NoError(t, o.Close())
	require.NoError(t, open(t, cfg).Close())
	delete(d.meta.stable, keyIdentity)
	_, err := Open(cfg)
	var damage *store.CorruptError
	require.ErrorAs(t, err, &damage)
	for i := range watcher.all {
		require.Less(t, watcher.all[i].Took, time.Minute)
		watcher.all[i].Took = 0
	}
	require.Len(t, watcher.all, 3)
	require.ErrorAs(t, watcher.all[2].Err, &damage)
	watcher.all[2].Err = nil
	require.Equal(t, []hooks.OutboxRecovered{{Outbox: "mem"}, {Outbox: "mem", Messages: 3, Bytes: pending}, {Outbox: "mem"}}, watcher.all)
}

// The cache holds what it has room for, however much went through it.
func TestCache_HoldsTheNewest(t *testing.T) {
	cfg := newMemDisk(1).config()
	cfg.CacheBytes = 2000
	o := open(t, cfg)
	fill(t, o, orders, 1, 500, 1)
	o.mu.Lock()
	defer o.mu.Unlock()
	size := 0
	for _, g := range o.cache.groups {
		size += len(g.entry)
	}
	require.Equal(t, size, o.cache.size)
	require.Greater(t, size, cfg.CacheBytes/2)
	require.LessOrEqual(t, size, cfg.CacheBytes)
}

// Places that wait to be saved when the outbox fails are told so.
func TestPlaces_EndWithTheOutbox(t *testing.T) {
	o := open(t, newMemDisk(1).config())
	fill(t, o, orders, 1, 1, 1)
	failure := errors.New("the disk is gone")
	saving := &placing{done: make(chan struct{})}
	o.mu.Lock()
	o.places.saving = saving
	o.endPlacingLocked(failure)
	require.Nil(t, o.places.saving)
	o.mu.Unlock()
	<-saving.done
	require.Equal(t, failure, saving.err)
}
