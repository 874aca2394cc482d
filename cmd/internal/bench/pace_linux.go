package bench

import (
	"runtime"
	"syscall"
	"time"
)

// sleepUntil sleeps in the kernel, on a thread that the caller has locked: the runtime's timers can be a millisecond
// late in an idle process, which a latency would show.
func sleepUntil(t time.Time) {
	for d := time.Until(t); d > 0; d = time.Until(t) {
		ts := syscall.NsecToTimespec(int64(d))
		if err := syscall.Nanosleep(&ts, nil); err != nil {
			runtime.Gosched() // a signal: the rest is left
		}
	}
}
