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

// Prepare verifies a file and makes the newest of its commits durable. The
// caller keeps others from the file. One that does not exist is in order.
func Prepare(path string) error { return opener{SyncDir}.prepareAt(path) }

// opener lets tests see which directories are synced.
type opener struct{ syncDir func(string) error }

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

// disk is what prepare needs of a file.
type disk interface {
	io.ReaderAt
	io.WriterAt
	Sync() error
}

func (o opener) prepare(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if err := settle(f, info.Size()); err != nil {
		return err
	}
	return o.syncDir(filepath.Dir(f.Name()))
}

// settle verifies, then writes the newest meta page again: a system that failed
// to write it shows it all the same, and does not try again by itself. What it
// leads to was synced before it was written the first time.
func settle(f disk, size int64) error {
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

// Open opens the file, which it makes with what fill puts in if there is none.
// It waits for patience while another process has the file, and fails with
// ErrLocked then; with a *DamageError if the file cannot be trusted.
func Open(path string, patience time.Duration, fill func(*bolt.Tx) error) (*DB, error) {
	return opener{SyncDir}.open(path, patience, fill)
}

func (o opener) open(path string, patience time.Duration, fill func(*bolt.Tx) error) (*DB, error) {
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		if err := o.create(path, fill); err != nil {
			return nil, err
		}
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	if err := lock(f, patience); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if err := o.prepare(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	// The lock belongs to what bbolt is given here: it takes it once more.
	given := &bolt.Options{Timeout: patience, OpenFile: func(string, int, os.FileMode) (*os.File, error) { return f, nil }}
	db := &DB{file: f}
	err = db.guard(func() (err error) {
		db.DB, err = bolt.Open(path, 0o600, given)
		return err
	})
	if errors.Is(err, berrors.ErrTimeout) {
		err = ErrLocked
	}
	if err != nil {
		_ = f.Close() // unless bbolt did
		return nil, err
	}
	return db, nil
}

// create makes the file under another name first, so that it is complete and
// durable under its own or not there at all. Who comes second uses the first's.
func (o opener) create(path string, fill func(*bolt.Tx) error) error {
	dir := filepath.Dir(path)
	made, err := os.CreateTemp(dir, filepath.Base(path)+".new-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(made.Name()) }()
	db, err := bolt.Open(made.Name(), 0o600, &bolt.Options{OpenFile: func(string, int, os.FileMode) (*os.File, error) { return made, nil }})
	if err != nil {
		return errors.Join(err, made.Close())
	}
	if err := errors.Join(db.Update(fill), db.Close()); err != nil {
		return err
	}
	if err := os.Link(made.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		// A file system without links: nothing keeps two first openers apart there.
		if err := os.Rename(made.Name(), path); err != nil {
			return err
		}
	}
	return o.syncDir(dir)
}
