package buffstreams

import (
	"fmt"
	"testing"
	"time"

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

// Of two times the earlier one counts, and none that is not known.
func TestStats_TheEarlierOfTwoTimes(t *testing.T) {
	var none time.Time
	first, second := time.Unix(1, 0), time.Unix(2, 0)
	for _, c := range [][3]time.Time{
		{first, second, first}, {second, first, first}, {none, first, first}, {first, none, first}, {none, none, none},
	} {
		require.Equal(t, c[2], earlier(c[0], c[1]))
	}
}

// A subscription ends, for the others of its group, with its context, its Close or its listener.
func TestSubscription_EndsInThreeWays(t *testing.T) {
	for end := range 4 {
		ways := [3]chan struct{}{make(chan struct{}), make(chan struct{}), make(chan struct{})}
		if end < len(ways) {
			close(ways[end])
		}
		s := &subscription{ctxDone: ways[0], closing: ways[1], listener: &stillListener{done: ways[2]}}
		require.Equal(t, end < 3, s.ends(), "%d", end)
		require.Equal(t, end < 2, s.isCancelled(), "%d", end)
	}
}
