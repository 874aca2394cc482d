package boltfile

import (
	"fmt"
	"os"
	"runtime/debug"
	"sync/atomic"

	bolt "go.etcd.io/bbolt"
)

// DB is a bbolt database whose panics are returned as errors.
type DB struct {
	*bolt.DB
	file   *os.File
	broken atomic.Bool // bbolt panicked, and may hold its locks for good
}

// View reads in a transaction, as that of bbolt.DB does.
func (db *DB) View(f func(*bolt.Tx) error) error {
	return db.guard(func() error { return db.DB.View(f) })
}

// Update writes in a transaction, as that of bbolt.DB does.
func (db *DB) Update(f func(*bolt.Tx) error) error {
	return db.guard(func() error { return db.DB.Update(f) })
}

// Close closes the file. After a panic of bbolt, whose own Close could then block forever, it only closes the file and
// so releases its lock; the mapped memory stays until the process ends.
func (db *DB) Close() error {
	if db.broken.Load() {
		return db.file.Close()
	}
	return db.DB.Close()
}

// guard calls f. It returns a *DamageError if f panics, or faults in the mapped memory because the file became shorter,
// and from then on without calling f.
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
