package boltfile

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

// Open opens the file, and creates it with the contents that initialize writes if there is none. If another process has
// the file open, Open waits up to timeout and then returns [ErrLocked]. It returns a [*DamageError] if the file cannot
// be trusted.
func Open(path string, timeout time.Duration, initialize func(*bolt.Tx) error) (*DB, error) {
	return opener{SyncDir}.open(path, timeout, initialize)
}

// Prepare verifies the file for a caller that opens it with bbolt itself, and makes its newest commit durable. The
// caller must keep others from the file. A file that does not exist is no error.
func Prepare(path string) error { return opener{SyncDir}.prepareAt(path) }

// opener lets tests observe which directories are synced.
type opener struct{ syncDir func(string) error }

func (o opener) open(path string, timeout time.Duration, initialize func(*bolt.Tx) error) (*DB, error) {
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		if err := o.create(path, initialize); err != nil {
			return nil, err
		}
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	if err := lock(f, timeout); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if err := o.prepare(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	// bbolt gets the file that holds the lock, and takes the lock once more.
	options := &bolt.Options{Timeout: timeout, OpenFile: func(string, int, os.FileMode) (*os.File, error) { return f, nil }}
	db := &DB{file: f}
	err = db.guard(func() (err error) {
		db.DB, err = bolt.Open(path, 0o600, options)
		return err
	})
	if errors.Is(err, berrors.ErrTimeout) {
		err = ErrLocked
	}
	if err != nil {
		_ = f.Close() // bbolt may have closed it
		return nil, err
	}
	return db, nil
}

// create creates the file under another name first, so that under its own name it is complete and durable, or not there
// at all. If another process creates it meanwhile, that file stays.
func (o opener) create(path string, initialize func(*bolt.Tx) error) error {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, filepath.Base(path)+".new-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }()
	options := &bolt.Options{OpenFile: func(string, int, os.FileMode) (*os.File, error) { return f, nil }}
	db, err := bolt.Open(f.Name(), 0o600, options)
	if err != nil {
		return errors.Join(err, f.Close())
	}
	if err := errors.Join(db.Update(initialize), db.Close()); err != nil {
		return err
	}
	if err := os.Link(f.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		// On a file system without links, the file of a process that opens it at the same moment can be replaced.
		if err := os.Rename(f.Name(), path); err != nil {
			return err
		}
	}
	return o.syncDir(dir)
}

func (o opener) prepareAt(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(o.prepare(f), f.Close())
}

func (o opener) prepare(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if err := rewriteMeta(f, info.Size()); err != nil {
		return err
	}
	return o.syncDir(filepath.Dir(f.Name()))
}

// file is what rewriteMeta needs of a file.
type file interface {
	io.ReaderAt
	io.WriterAt
	Sync() error
}

// rewriteMeta verifies the file, then writes its newest meta page again and syncs it: a system that failed to write the
// page still shows it, and does not try again by itself. The pages that it reaches were synced before it was first
// written.
func rewriteMeta(f file, size int64) error {
	m, err := verify(f, size)
	if err != nil {
		return err
	}
	page := make([]byte, m.pageSize)
	if _, err := f.ReadAt(page, m.offset); err != nil {
		return err
	}
	if _, err := f.WriteAt(page, m.offset); err != nil {
		return err
	}
	return f.Sync()
}
