package outbox

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"

	"github.com/hashicorp/raft-wal/metadb"
	"github.com/hashicorp/raft-wal/types"

	"github.com/buffstreams/watermill-buffstreams/storage/internal/boltfile"
	"github.com/buffstreams/watermill-buffstreams/store"
)

// openDisk opens dir, or creates it, and locks it.
func openDisk(dir string) (storage, error) {
	if err := makeDir(dir); err != nil {
		return storage{}, err
	}
	lock, err := lockDir(dir)
	if err != nil {
		return storage{}, err
	}
	return storage{fs: diskFS{osSystem{}}, meta: &diskMeta{}, lock: lock}, nil
}

// makeDir creates dir if there is none, makes its name durable, and lets only its owner use it: it holds messages, and
// the secret that proves the ownership of the outbox's id. A directory of another owner, such as a mounted volume that
// belongs to the process's group, must keep all others out.
func makeDir(dir string) error {
	if err := boltfile.MakeDir(dir); err != nil {
		return fmt.Errorf("outbox: %w", err)
	}
	err := os.Chmod(dir, 0o700) //nolint:gosec // a directory must be searchable
	if err == nil {
		return nil
	}
	if !errors.Is(err, os.ErrPermission) {
		return fmt.Errorf("outbox: %w", err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("outbox: %w", err)
	}
	if mode := info.Mode().Perm(); mode&0o007 != 0 {
		return fmt.Errorf("outbox: the directory %s belongs to another user and has mode %04o: let only its owner and "+
			"group use it (chmod o-rwx), or use a directory of its own", dir, mode)
	}
	return nil
}

// system is what diskFS needs of the operating system. Tests replace it.
type system interface {
	List(dir string) ([]string, error)
	Open(path string, flag int) (file, error)
	Remove(path string) error
	SyncDir(dir string) error
}

type file interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	// Allocate makes the file size bytes long, and reserves the space if the file system can.
	Allocate(size int64) error
	// SyncData makes contents and length durable.
	SyncData() error
}

type osSystem struct{}

func (osSystem) List(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		if !e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names, err
}

func (osSystem) Open(path string, flag int) (file, error) {
	f, err := os.OpenFile(path, flag, 0o600)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

func (osSystem) Remove(path string) error { return os.Remove(path) }
func (osSystem) SyncDir(dir string) error { return boltfile.SyncDir(dir) }

type osFile struct{ *os.File }

func (f osFile) Allocate(size int64) error { return preallocate(f.File, size) }
func (f osFile) SyncData() error           { return syncData(f.File) }

// diskFS is the file system that the engine uses. Unlike the engine's own, it creates files for their owner only, and
// does not sync their times.
type diskFS struct{ sys system }

var _ types.VFS = diskFS{}

func (fs diskFS) ListDir(dir string) ([]string, error) { return fs.sys.List(dir) }

func (fs diskFS) Create(dir, name string, size uint64) (types.WritableFile, error) {
	f, err := fs.sys.Open(filepath.Join(dir, name), os.O_CREATE|os.O_EXCL|os.O_RDWR)
	if err != nil {
		return nil, err
	}
	if err := f.Allocate(int64(size)); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &newFile{file: f, sys: fs.sys, dir: dir}, nil
}

func (fs diskFS) Delete(dir, name string) error {
	if err := fs.sys.Remove(filepath.Join(dir, name)); err != nil {
		return err
	}
	return fs.sys.SyncDir(dir)
}

func (fs diskFS) OpenReader(dir, name string) (types.ReadableFile, error) {
	return fs.sys.Open(filepath.Join(dir, name), os.O_RDONLY)
}

func (fs diskFS) OpenWriter(dir, name string) (types.WritableFile, error) {
	f, err := fs.sys.Open(filepath.Join(dir, name), os.O_RDWR)
	if err != nil {
		return nil, err
	}
	return &newFile{file: f, sys: fs.sys, dir: dir}, nil
}

// newFile makes its name durable with its first Sync, so that creating a segment costs no fsync until something is in
// it.
type newFile struct {
	file
	sys   system
	dir   string
	named atomic.Bool
}

func (f *newFile) Sync() error {
	if err := f.SyncData(); err != nil {
		return err
	}
	if f.named.Load() {
		return nil
	}
	if err := f.sys.SyncDir(f.dir); err != nil {
		return err
	}
	f.named.Store(true)
	return nil
}

// diskMeta is the engine's meta store. Its B-tree trusts what it reads, so Load verifies the file first.
type diskMeta struct{ metadb.BoltMetaDB }

func (m *diskMeta) Load(dir string) (state types.PersistentState, err error) {
	err = boltfile.Prepare(filepath.Join(dir, metadb.FileName))
	var damage *boltfile.DamageError
	if errors.As(err, &damage) {
		return state, &store.CorruptError{File: metadb.FileName, Reason: "meta store", Err: err}
	}
	if err != nil {
		return state, err
	}
	return m.BoltMetaDB.Load(dir)
}
