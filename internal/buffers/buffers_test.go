package buffers

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestGetHasRoom(t *testing.T) {
	for _, n := range []int{1, least - 1, least, least + 1, 64 << 10, 1<<20 + 1} {
		for range 3 {
			buf := Get(n)
			require.Empty(t, buf)
			require.GreaterOrEqual(t, cap(buf), n)
			require.Less(t, cap(buf), 2*n+1)
			Put(append(buf, "used"...))
		}
	}
}

func TestPutLeavesOthers(t *testing.T) {
	Put(make([]byte, 0, least+1)) // would be given to somebody who needs twice as much
	require.GreaterOrEqual(t, cap(Get(least+1)), 2*least)
}
