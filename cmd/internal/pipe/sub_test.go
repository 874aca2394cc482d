package pipe

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestDrainPlain_EndsWhenLooksFindNothing(t *testing.T) {
	for name, test := range map[string]struct {
		every time.Duration
		count int64
		least time.Duration
	}{
		"nothing comes":         {time.Hour, 0, quietLook * quietLooks},
		"they come in time":     {quietLook * (quietLooks - 1), 10, 10*quietLook*(quietLooks-1) + quietLook*quietLooks},
		"there is no end to it": {quietLook, 1 << 30, closeTimeout},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := &receiver{}
				done := make(chan struct{})
				go func() { // ends with done, or the last message
					for range test.count {
						select {
						case <-time.After(test.every - time.Millisecond):
							r.taken.Add(1)
						case <-done:
							return
						}
						time.Sleep(time.Millisecond)
					}
				}()
				begin := time.Now()
				r.drainPlain()
				close(done)
				require.InDelta(t, test.least.Seconds(), time.Since(begin).Seconds(), quietLook.Seconds())
				if test.count < 1<<30 {
					require.Equal(t, test.count, r.taken.Load())
				}
			})
		})
	}
}
