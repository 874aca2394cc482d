//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package boltfile

import (
	"errors"
	"os"
	"syscall"
	"time"
)

const lockPause = 20 * time.Millisecond

// lock takes the lock that bbolt itself uses. The kernel releases it with the
// file, however the process ends.
func lock(f *os.File, patience time.Duration) error {
	for end := time.Now().Add(patience); ; time.Sleep(lockPause) {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return err
		}
		if !time.Now().Before(end) {
			return ErrLocked
		}
	}
}
