package drill

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

// fill obeys fillDisk: it writes a file until the disk is full. One page stays free.
func fill(command, path string) error {
	if command != fillDisk {
		return nil
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	for {
		if _, err := f.Write(make([]byte, 4096)); err != nil {
			return f.Close()
		}
	}
}

// mountHanging mounts a file system at a directory, in the mount namespace of this process. The result obeys hang and goOn: the
// kernel freezes the file system, as it does for a snapshot, and whatever writes to it waits, and cannot be killed.
func mountHanging(dir string, size int) (obey func(command string) error, err error) {
	image := filepath.Join(dir, "image")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		return nil, err
	}
	if err := os.Truncate(image, int64(size)); err != nil {
		return nil, err
	}
	for _, command := range [][]string{{"mkfs.ext4", "-q", image}, {"mount", "-o", "loop", image, dir}} {
		if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("%v: %w: %s", command, err, out)
		}
	}
	mounted, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	const freeze, thaw = 0xc0045877, 0xc0045878 // FIFREEZE, FITHAW
	frozen := false
	ioctl := func(request uintptr) error {
		if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, mounted.Fd(), request, 0); errno != 0 {
			return fmt.Errorf("ioctl %x: %w", request, errno)
		}
		frozen = request == freeze
		return nil
	}
	return func(command string) error {
		switch {
		case command == hang && !frozen:
			return ioctl(freeze)
		case command == goOn && frozen:
			return ioctl(thaw)
		}
		return nil
	}, nil
}
