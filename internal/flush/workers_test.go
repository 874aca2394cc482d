package flush

import (
	"sync"
	"testing"

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
