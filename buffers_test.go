package buffstreams

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/buffers"
)

func TestTheLastManagerLetsGoOfTheBuffers(t *testing.T) {
	const size = 3 << 20 // that nothing else needs
	buf := buffers.Get(size)
	first, err := NewManager(ManagerConfig{})
	require.NoError(t, err)
	last, err := NewManager(ManagerConfig{})
	require.NoError(t, err)
	buffers.Put(buf)
	require.NoError(t, first.Close())
	require.NoError(t, first.Close())
	again := buffers.Get(size)
	require.Same(t, &buf[:1][0], &again[:1][0], "somebody may need it")
	buffers.Put(again)
	require.NoError(t, last.Close())
	again = buffers.Get(size)
	require.NotSame(t, &buf[:1][0], &again[:1][0])
}
