package outbox

import (
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/hashicorp/raft-wal/types"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// deadMeta is a meta store that takes no more changes.
type deadMeta struct{ types.MetaStore }

func (deadMeta) SetStable([]byte, []byte) error          { return errPowerCut }
func (deadMeta) CommitState(types.PersistentState) error { return errPowerCut }

// TestRecovery_OfManyPendingMessages opens an outbox with a million pending messages: the first can be read soon, and
// neither opening nor reading takes memory for all of them.
func TestRecovery_OfManyPendingMessages(t *testing.T) {
	count := 1_000_000
	if testing.Short() {
		count = 100_000
	}
	dir := filepath.Join(t.TempDir(), "outbox")
	keys := pendingMessages(t, dir, count, 1000)
	before := heap()
	start := time.Now()
	o := open(t, Config{Dir: dir})
	_, err := o.Read(keys[9], 1, 64<<10)
	require.NoError(t, err)
	took := time.Since(start)
	opened := int64(heap()) - int64(before)
	total := 0
	for _, k := range keys {
		total += countAll(t, o, k)
	}
	read := int64(heap()) - int64(before)
	t.Logf("%d messages: first after %v; heap +%d KiB opened, +%d KiB after reading all", count, took, opened>>10, read>>10)
	assert.Equal(t, count, total)
	assert.Less(t, took, 20*time.Second, "some 0.1 s, where no other process wants the machine")
	assert.Less(t, opened, int64(8<<20))
	assert.Less(t, read, int64(8<<20))
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
