package buffstreams

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

// Many reasons are some, in their order, and how many more there are.
func TestReasons_AreBounded(t *testing.T) {
	for _, n := range []int{0, 1, maxReasons, maxReasons + 1, 3 * maxReasons} {
		var r reasons
		for i := range n {
			r.add("%03d", n-i)
		}
		got := r.sorted()
		require.Len(t, got, min(n, maxReasons+1))
		for i := range min(n, maxReasons) {
			require.Equal(t, fmt.Sprintf("%03d", i+1), got[i])
		}
		if n > maxReasons {
			require.Equal(t, fmt.Sprintf("and %d more", n-maxReasons), got[maxReasons])
		}
	}
}
