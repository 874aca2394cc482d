package pool

import (
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestACrewRunsEveryKick: whatever is kicked is flushed after that, by goroutines that end with the crew.
func TestACrewRunsEveryKick(t *testing.T) {
	noLeaks(t)
	c := newCrew()
	var wg sync.WaitGroup
	for range 4 * crewSize {
		wg.Go(func() {
			flushed := make(chan struct{}, 1)
			f := newFlusher(c, func() {
				select {
				case flushed <- struct{}{}:
				default:
				}
			}, nil)
			for range 1000 {
				select {
				case <-flushed:
				default:
				}
				f.kick()
				<-flushed
			}
			f.close()
		})
	}
	wg.Wait()
	require.LessOrEqual(t, c.idle.Load(), int32(crewSize))
	c.close()
}
