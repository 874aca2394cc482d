package boltfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
)

// SyncDir makes the names in dir durable. On systems that cannot it does nothing.
func SyncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil // directories cannot be synced, and names are journaled
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// MakeDir creates dir and its parents, for their owner only, and makes their names durable.
func MakeDir(dir string) error { return opener{SyncDir}.makeDir(dir) }

func (o opener) makeDir(dir string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	top := filepath.Dir(dir)
	for ; top != filepath.Dir(top); top = filepath.Dir(top) {
		if _, err := os.Stat(top); !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for parent := filepath.Dir(dir); ; parent = filepath.Dir(parent) {
		err := o.syncDir(parent)
		// In a parent that this process may not open, or that cannot be synced, it has created nothing.
		if err != nil && !errors.Is(err, fs.ErrPermission) && !errors.Is(err, syscall.EINVAL) {
			return err
		}
		if parent == top || parent == filepath.Dir(parent) {
			return nil
		}
	}
}
