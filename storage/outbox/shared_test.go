package outbox

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// What publishers share is made once, and belongs to the Outbox.
func TestShared_IsMadeOnce(t *testing.T) {
	o, other := open(t, newMemDisk(1).config()), open(t, newMemDisk(2).config())
	calls := 0
	fresh := func() any { calls++; return &calls }
	for range 3 {
		require.Same(t, &calls, o.Shared(fresh))
	}
	require.Equal(t, 1, calls)
	require.Equal(t, "its own", other.Shared(func() any { return "its own" }))
	require.NoError(t, o.Close())
	require.NoError(t, other.Close())
}
