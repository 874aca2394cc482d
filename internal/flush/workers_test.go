package flush

import (
	"sync"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// A kick that finds the flusher on its way back to idle must not be lost, whichever goroutine runs it.
func TestWorkers_FlushAfterEveryKick(t *testing.T) {
	testkit.CheckLeaks(t)
	w := NewWorkers()
	var wg sync.WaitGroup
	for range 4 * keptWorkers {
		wg.Go(func() { // ends after its kicks; the test waits for it
			flushed := make(chan struct{}, 1)
			f := New(w, func() {
				select {
				case flushed <- struct{}{}:
				default:
				}
			})
			for range 1000 {
				select {
				case <-flushed:
				default:
				}
				f.Kick()
				<-flushed
			}
			f.Close()
		})
	}
	wg.Wait()
	require.LessOrEqual(t, w.idle.Load(), int32(keptWorkers))
	w.Close()
}

// A conversation of one message at a time is always served by the same goroutine, which has its stack already.
func TestWorkers_OneThatIsIdleServesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := NewWorkers()
		f := New(w, func() {})
		for range 5 * keptWorkers {
			f.Kick()
			synctest.Wait()
			require.EqualValues(t, 1, w.idle.Load())
		}
		f.Close()
		w.Close()
	})
}
