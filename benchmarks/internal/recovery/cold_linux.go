package recovery

import (
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// forget takes the files of a directory out of the page cache, as a restart of the machine would. What was not fsynced
// stays there; that is not what is read first.
func forget(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		file, err := os.Open(filepath.Join(dir, e.Name()))
		if err != nil {
			return err
		}
		err = os.NewSyscallError("fadvise", unix.Fadvise(int(file.Fd()), 0, 0, unix.FADV_DONTNEED))
		if err := errors.Join(err, file.Close()); err != nil {
			return err
		}
	}
	return nil
}
