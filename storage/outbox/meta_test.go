package outbox

import (
	"fmt"
	"os"
	"slices"
	"testing"

	"github.com/hashicorp/raft-wal/types"
	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/store"
)

// brokenMeta is a meta store with a damaged page: each call panics, as the B-tree does.
type brokenMeta struct{ types.MetaStore }

func (brokenMeta) Load(string) (types.PersistentState, error) { panic("page 7 already freed") }
func (brokenMeta) CommitState(types.PersistentState) error    { panic("page 7 already freed") }
func (brokenMeta) GetStable([]byte) ([]byte, error)           { panic("page 7 already freed") }
func (brokenMeta) SetStable([]byte, []byte) error             { panic("page 7 already freed") }

// Damage that makes the B-tree panic is an error of whatever has met it.
func TestMetaStore_ReturnsPanicsAsErrors(t *testing.T) {
	m := metaStore{brokenMeta{}}
	for what, call := range map[string]func() error{
		"get":         func() error { _, err := m.get("k"); return err },
		"set":         func() error { return m.set("k", nil) },
		"remove":      func() error { return m.remove("k") },
		"Load":        func() error { _, err := m.Load("dir"); return err },
		"CommitState": func() error { return m.CommitState(types.PersistentState{}) },
	} {
		var damage *store.CorruptError
		require.ErrorAs(t, call(), &damage, what)
		require.Contains(t, damage.Reason, "page 7", what)
	}
}

// TestOpen_RefusesStateThatItDoesNotKnow: of a later version, or with more or less in it, though no bit is damaged.
func TestOpen_RefusesStateThatItDoesNotKnow(t *testing.T) {
	d := newMemDisk(1)
	o := open(t, d.config())
	fill(t, o, orders, 1, 500, 10)
	require.NoError(t, o.SetPlace(bg, orders, store.Place{Address: "h:1", Tenure: 1}))
	o = reopen(t, o, d.config())
	require.NoError(t, o.Close())
	keys := []string{keyIdentity, keyLineage, keyStreams, keyOpenings, keyPlaces, keySummary(d.meta.state.Segments[0].ID)}
	for _, k := range keys {
		m := metaStore{d.next(1)}
		value, err := m.get(k)
		require.NoError(t, err)
		require.EqualValues(t, stateVersion, value[0], k)
		for _, changed := range [][]byte{{}, append([]byte{99}, value[1:]...), value[:len(value)-1], append(slices.Clone(value), 0x80)} {
			d := d.next(1)
			require.NoError(t, metaStore{d}.set(k, changed))
			_, err := Open(d.config())
			var damage *store.CorruptError
			require.ErrorAs(t, err, &damage, "%s: %x", k, changed)
			require.Zero(t, d.open)
		}
	}
}

// TestAsCorrupt: what the owner of a directory can repair is no damage.
func TestAsCorrupt(t *testing.T) {
	damage := &store.CorruptError{Reason: "before"}
	for _, err := range []error{damage, &os.PathError{Op: "open", Err: os.ErrPermission}, fmt.Errorf("%w: %w", types.ErrCorrupt, os.ErrPermission), ioError} {
		require.Equal(t, err, asCorrupt(err, "file", "segment"))
	}
	for _, err := range []error{types.ErrCorrupt, &os.PathError{Op: "open", Err: os.ErrNotExist}} {
		require.Equal(t, &store.CorruptError{File: "file", Reason: "segment", Err: err}, asCorrupt(err, "file", "segment"))
	}
}
