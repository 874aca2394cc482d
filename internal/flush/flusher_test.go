package flush

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestALateFlushComes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var flushed atomic.Int32
		f := New(nil, func() { flushed.Add(1) })
		for n := range int32(3) {
			f.Later()
			f.Later()
			synctest.Wait()
			require.Equal(t, n, flushed.Load(), "not at once")
			time.Sleep(lateBy)
			synctest.Wait()
			require.Equal(t, n+1, flushed.Load())
		}
		f.Later()
		f.Kick()
		synctest.Wait()
		require.EqualValues(t, 4, flushed.Load(), "somebody waits now")
		time.Sleep(2 * lateBy)
		synctest.Wait()
		require.EqualValues(t, 4, flushed.Load(), "nothing is left")
		f.Later()
		f.Close()
		time.Sleep(2 * lateBy)
		require.EqualValues(t, 4, flushed.Load())
	})
}
