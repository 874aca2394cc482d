package outbox

import (
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
