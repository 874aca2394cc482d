package outbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"

	"github.com/hashicorp/raft-wal/types"
)

// makeDir creates dir or closes it to everybody else: it holds messages and the
// secret that the outbox's id is bound to.
func makeDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("outbox: %w", err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return fmt.Errorf("outbox: the directory must belong to this process alone: %w", err)
	}
	return nil
}

// diskFS is the engine's view of the file system. It differs from the engine's
// own in the mode of its files and in syncing data without their times.
type diskFS struct{}

var _ types.VFS = diskFS{}

func (diskFS) ListDir(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		if !e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names, err
}

func (diskFS) Create(dir, name string, size uint64) (types.WritableFile, error) {
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := preallocate(f, int64(size)); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &newFile{File: f, dir: dir}, nil
}

func (diskFS) Delete(dir, name string) error {
	if err := os.Remove(filepath.Join(dir, name)); err != nil {
		return err
	}
	return syncDir(dir)
}

func (diskFS) OpenReader(dir, name string) (types.ReadableFile, error) {
	return os.Open(filepath.Join(dir, name))
}

func (diskFS) OpenWriter(dir, name string) (types.WritableFile, error) {
	return os.OpenFile(filepath.Join(dir, name), os.O_RDWR, 0)
}

// newFile makes its name durable with its first Sync, so that creating a
// segment costs nothing until something is in it.
type newFile struct {
	*os.File
	dir   string
	named atomic.Bool
}

func (f *newFile) Sync() error {
	if err := syncData(f.File); err != nil {
		return err
	}
	if f.named.Load() {
		return nil
	}
	if err := syncDir(f.dir); err != nil {
		return err
	}
	f.named.Store(true)
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
