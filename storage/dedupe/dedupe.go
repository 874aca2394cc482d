// Package dedupe keeps the state of a store.DedupeStore in a file, so that a subscriber that restarts remembers which
// messages it has handled.
package dedupe

import (
	"errors"
	"fmt"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/buffstreams/watermill-buffstreams/storage/internal/boltfile"
	"github.com/buffstreams/watermill-buffstreams/store"
)

// Store is a store.DedupeStore in one file. All methods may be called concurrently, and listeners may share a Store.
// They block while they read or write the disk.
//
// The file is a bbolt database. A Save that has returned nil survives a crash; a Save that a crash or an error
// interrupted is there as a whole or not at all. Each record has a checksum, and all records together have one, so
// [Open] notices damage and missing records and returns a [*CorruptError]. There is one exception: damage to the newest
// Save, after a crash and before the next Open, looks like a Save that the crash interrupted.
type Store struct {
	db   *boltfile.DB
	path string

	writing sync.Mutex // held during a write to the disk: after one that fails, no other may begin
	mu      sync.Mutex // guards failed
	failed  error      // wraps ErrFailed
}

var _ store.DedupeStore = (*Store)(nil)

// lockTimeout is how long Open waits for a process that is about to end.
const lockTimeout = time.Second

// Open opens the file, and creates it if there is none, readable by its owner only; the directory must exist. Open
// reads the whole file once. It returns [ErrLocked] if another process, or another Store of this process, still has the
// file open after one second, and a [*CorruptError] if the file cannot be trusted. The caller must close the Store.
func Open(path string) (*Store, error) {
	db, err := boltfile.Open(path, lockTimeout, initialize)
	switch {
	case errors.Is(err, boltfile.ErrLocked):
		return nil, ErrLocked
	case isDamage(err):
		return nil, &CorruptError{Path: path, Reason: "the B-tree", Err: err}
	case err != nil:
		return nil, fmt.Errorf("dedupe: cannot open %s: %w", path, err)
	}
	s := &Store{db: db, path: path}
	if err := s.view(verify); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return s, nil
}

// Close closes the file, once the calls under way have returned. Further calls return nil. A listener that still uses
// the store acks no more messages.
func (s *Store) Close() error {
	var err error
	if s.failure() == nil {
		// bbolt falls back from a damaged commit to the one before. After this one both have the same records.
		err = s.update(func(*bolt.Tx) error { return nil })
		if errors.Is(err, berrors.ErrDatabaseNotOpen) {
			return nil // closed before
		}
	}
	return errors.Join(err, s.db.Close())
}

// Load returns what is saved of a stream; ok is false, and err nil, if nothing is. It returns a [*CorruptError] if the
// record was damaged since Open.
func (s *Store) Load(id store.StreamID) (state store.StreamState, ok bool, err error) {
	err = s.view(func(tx *bolt.Tx) error {
		k := key(id)
		value := tx.Bucket(streamsBucket).Get(k)
		if value == nil {
			return nil
		}
		if state, ok = decode(k, value); !ok {
			return damaged("the record of stream %d to %.100q", id.Stream, id.Topic)
		}
		return nil
	})
	return state, ok, err
}

// Save replaces the states of the given streams, either all of them or none, and returns once that is durable. After an
// error that wraps [ErrFailed] it is not known which.
func (s *Store) Save(states map[store.StreamID]store.StreamState) error {
	return s.update(func(tx *bolt.Tx) error {
		t, err := readTotals(tx)
		if err != nil {
			return err
		}
		b := tx.Bucket(streamsBucket)
		for id, state := range states {
			k := key(id)
			t.remove(k, b.Get(k))
			v := encode(k, state)
			if err := b.Put(k, v); err != nil {
				return err
			}
			t.add(k, v)
		}
		return t.write(tx)
	})
}

// Forget drops a stream, and returns once that is durable. A stream that is not known is no error.
func (s *Store) Forget(id store.StreamID) error {
	return s.update(func(tx *bolt.Tx) error {
		t, err := readTotals(tx)
		if err != nil {
			return err
		}
		b, k := tx.Bucket(streamsBucket), key(id)
		t.remove(k, b.Get(k))
		if err := b.Delete(k); err != nil {
			return err
		}
		return t.write(tx)
	})
}

// view reads in a transaction, unless the store has failed.
func (s *Store) view(f func(*bolt.Tx) error) error {
	if err := s.failure(); err != nil {
		return err
	}
	return s.wrap(s.db.View(f))
}

// update writes in a transaction and fsyncs, unless the store has failed. It never writes again after an error: bbolt
// would build the next commit on bytes that the system shows although they are not on the disk.
func (s *Store) update(f func(*bolt.Tx) error) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	if err := s.failure(); err != nil {
		return err
	}
	err := s.wrap(s.db.Update(f))
	if err == nil || errors.Is(err, berrors.ErrDatabaseNotOpen) {
		return err
	}
	return s.fail(err)
}

func (s *Store) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed
}

// fail makes all later calls return the error that it returns.
func (s *Store) fail(cause error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failed = fmt.Errorf("%w: %w", ErrFailed, cause)
	return s.failed
}
