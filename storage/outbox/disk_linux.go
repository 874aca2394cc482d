package outbox

import (
	"errors"
	"os"
	"syscall"
)

// preallocate reserves space, so that no fsync need allocate it. On a file system that cannot, the file grows as it is
// written.
func preallocate(f *os.File, size int64) error {
	if size == 0 {
		return nil
	}
	for {
		err := syscall.Fallocate(int(f.Fd()), 0, 0, size)
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case errors.Is(err, syscall.EOPNOTSUPP), errors.Is(err, syscall.ENOSYS):
			return nil
		case err != nil:
			return os.NewSyscallError("fallocate", err)
		}
		return nil
	}
}

// syncData makes contents and size durable, but not the file's times.
func syncData(f *os.File) error {
	for {
		err := syscall.Fdatasync(int(f.Fd()))
		if !errors.Is(err, syscall.EINTR) {
			return os.NewSyscallError("fdatasync", err)
		}
	}
}
