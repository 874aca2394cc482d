package buffers

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// Several buffers of a size are free: each is given out once, the last one used first, and the list keeps no hold of
// what it has given out. When all were dropped it has no memory of its own.
func TestGet_GivesOutEachBufferOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s freeList
		size, class := classOf(minSize)
		var all [][]byte
		for range 4 {
			all = append(all, make([]byte, 1, size))
		}
		for round := range 3 {
			for i, buf := range all {
				s.put(buf[:0], class)
				require.Equal(t, (i+1)*size, s.kept())
			}
			for i := range all {
				got := s.get(class)
				require.NotNil(t, got, "round %d", round)
				require.Same(t, &all[len(all)-1-i][0], &got[:1][0], "round %d", round)
			}
			require.Zero(t, s.kept())
			require.Nil(t, s.get(class))
			at := s.classes[class].buffers
			require.Empty(t, at)
			for _, buf := range at[:cap(at)] {
				require.Nil(t, buf, "the garbage collector may have it")
			}
		}
		s.put(all[0][:0], class)
		time.Sleep(3 * idleTime)
		synctest.Wait()
		require.Zero(t, s.kept())
		require.Nil(t, s.classes[class].buffers)
		require.Nil(t, s.sweepTimer)
	})
}
