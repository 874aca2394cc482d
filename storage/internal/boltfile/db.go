package boltfile

import (
	"fmt"
	"os"
	"runtime/debug"
	"sync/atomic"

	bolt "go.etcd.io/bbolt"
)

// DB is bbolt's, whose panics end as errors.
type DB struct {
	*bolt.DB
	file   *os.File
	broken atomic.Bool // bbolt panicked, maybe with its locks held
}

// View is bbolt's.
func (db *DB) View(f func(*bolt.Tx) error) error {
	return db.guard(func() error { return db.DB.View(f) })
}

// Update is bbolt's.
func (db *DB) Update(f func(*bolt.Tx) error) error {
	return db.guard(func() error { return db.DB.Update(f) })
}

// Close is bbolt's. After a panic it gives back the file and its lock, and
// leaves the rest to the end of the process: bbolt's Close could wait forever.
func (db *DB) Close() error {
	if db.broken.Load() {
		return db.file.Close()
	}
	return db.DB.Close()
}

// guard turns a panic of f, and a fault in the mapped memory as when the file
// is cut under it, into a *DamageError. After that nothing is tried again.
func (db *DB) guard(f func() error) (err error) {
	if db.broken.Load() {
		return &DamageError{Reason: "it was found damaged before"}
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			db.broken.Store(true)
			err = &DamageError{Reason: fmt.Sprint(p)}
		}
	}()
	return f()
}
