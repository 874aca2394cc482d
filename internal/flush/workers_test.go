package flush

import (
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
)

// TestACrewRunsEveryKick: whatever is kicked is flushed after that, by goroutines that end with the crew.
func TestACrewRunsEveryKick(t *testing.T) {
	testkit.CheckLeaks(t)
	c := NewWorkers()
	var wg sync.WaitGroup
	for range 4 * keptWorkers {
		wg.Go(func() {
			flushed := make(chan struct{}, 1)
			f := New(c, func() {
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
	require.LessOrEqual(t, c.idle.Load(), int32(keptWorkers))
	c.Close()
}
