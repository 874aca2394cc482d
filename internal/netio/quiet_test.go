package netio

import (
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// The first event is logged at once, then one a minute with the number of those between.
func TestQuiet_CountsBetweenLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var q Quiet
		var logged []int
		for range 130 { // seconds
			if n, ok := q.Say(); ok {
				logged = append(logged, n)
			}
			time.Sleep(time.Second)
		}
		require.Equal(t, []int{1, 60, 60}, logged)
	})
}

// One name that is loud silences no other, and many names take no more memory than some.
func TestQuiet_ByNameIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var q QuietBy
		for range 3 {
			_, _ = q.Say("loud")
		}
		n, ok := q.Say("other")
		require.True(t, ok)
		require.Equal(t, 1, n)
		for i := range 5 * maxQuiet {
			_, _ = q.Say(strconv.Itoa(i))
		}
		require.LessOrEqual(t, len(q.by), maxQuiet)
		time.Sleep(2 * quietFor)
		n, ok = q.Say("loud")
		require.True(t, ok)
		require.Equal(t, 3, n, "two were not logged")
		_, ok = q.Say("new")
		require.True(t, ok)
		require.Less(t, len(q.by), 10, "what is over makes room")
	})
}
