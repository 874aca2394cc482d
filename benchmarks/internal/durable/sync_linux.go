package durable

import (
	"errors"
	"os"
	"syscall"
)

// syncData is the cheapest way to make what was written durable.
func syncData(f *os.File) error {
	for {
		err := syscall.Fdatasync(int(f.Fd()))
		if !errors.Is(err, syscall.EINTR) {
			return os.NewSyscallError("fdatasync", err)
		}
	}
}
