//go:build unix

package drive

import (
	"syscall"
	"time"
)

// cpuTime is how long this process has had a processor so far. Other load on the machine does not count, as it does in
// the time that a run takes.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
