// Package dedupe keeps the state of a store.DedupeStore in a file.
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

var (
	// ErrLocked means that another process has the file open.
	ErrLocked = errors.New("dedupe: the file is in use: only one process can open it at a time")
	// ErrFailed is wrapped, with its cause, by every call after a write or an fsync failed. What the disk holds then is not
	// known, so the store never tries again: open it anew once the cause is gone.
	ErrFailed = errors.New("dedupe: stopped after a failed write")
)

// CorruptError says why the file cannot be trusted. What it remembers is lost: without it, and with a new one in its place,
// publishers that resend bring messages again that were handled.
type CorruptError struct {
	Path   string
	Reason string
	Err    error // cause, may be nil
}

func (e *CorruptError) Error() string {
	text := fmt.Sprintf("dedupe: %s is damaged: %s", e.Path, e.Reason)
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	return text + " (with the file moved away a new one is begun, and messages that were handled may come again)"
}

func (e *CorruptError) Unwrap() error { return e.Err }

// Store is a store.DedupeStore in one file. It is safe for concurrent use; listeners may share it.
//
// The file is a bbolt database. What Save has returned for survives a crash; of a Save that a crash or an error
// interrupted, all is there or nothing. Every record has a checksum, and all of them together have: Open fails with a
// *CorruptError rather than with some forgotten. One thing looks like a Save that a crash interrupted: the very last one, if
// its bits rot after a crash and before the next Open.
type Store struct {
	db   *boltfile.DB
	path string

	writing sync.Mutex
	mu      sync.Mutex
	failed  error // wraps ErrFailed
}

var _ store.DedupeStore = (*Store)(nil)

// lockPatience is how long Open waits for a process that is about to end.
const lockPatience = time.Second

// Open opens the file, or makes it, readable by its owner only. It reads all of it once.
func Open(path string) (*Store, error) {
	db, err := boltfile.Open(path, lockPatience, begin)
	switch {
	case errors.Is(err, boltfile.ErrLocked):
		return nil, ErrLocked
	case isDamage(err):
		return nil, &CorruptError{Path: path, Reason: "its tree", Err: err}
	case err != nil:
		return nil, fmt.Errorf("dedupe: cannot open %s: %w", path, err)
	}
	s := &Store{db: db, path: path}
	if err := s.view(verify); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return s, nil
}

// Close closes the file. Listeners that still use the store ack nothing more.
func (s *Store) Close() error {
	var err error
	if s.failure() == nil {
		// bbolt falls back from a damaged commit to the one before: let that be the same.
		err = s.update(func(*bolt.Tx) error { return nil })
		if errors.Is(err, berrors.ErrDatabaseNotOpen) {
			return nil // closed before
		}
	}
	return errors.Join(err, s.db.Close())
}

// Load implements store.DedupeStore.
func (s *Store) Load(id store.StreamID) (state store.StreamState, ok bool, err error) {
	err = s.view(func(tx *bolt.Tx) error {
		k := key(id)
		value := tx.Bucket(bucket).Get(k)
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

// Save implements store.DedupeStore.
func (s *Store) Save(states map[store.StreamID]store.StreamState) error {
	return s.update(func(tx *bolt.Tx) error {
		t, err := readTotals(tx)
		if err != nil {
			return err
		}
		b := tx.Bucket(bucket)
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

// Forget implements store.DedupeStore.
func (s *Store) Forget(id store.StreamID) error {
	return s.update(func(tx *bolt.Tx) error {
		t, err := readTotals(tx)
		if err != nil {
			return err
		}
		b, k := tx.Bucket(bucket), key(id)
		t.remove(k, b.Get(k))
		if err := b.Delete(k); err != nil {
			return err
		}
		return t.write(tx)
	})
}

// view reads, unless the store failed.
func (s *Store) view(f func(*bolt.Tx) error) error {
	if err := s.failure(); err != nil {
		return err
	}
	return s.name(s.db.View(f))
}

func (s *Store) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed
}

// update writes and fsyncs. The first time that this fails is the last: bbolt would build the next commit on one that the
// system shows although it is not on the disk.
func (s *Store) update(f func(*bolt.Tx) error) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	if err := s.failure(); err != nil {
		return err
	}
	err := s.name(s.db.Update(f))
	if err == nil || errors.Is(err, berrors.ErrDatabaseNotOpen) {
		return err
	}
	err = fmt.Errorf("%w: %w", ErrFailed, err)
	s.mu.Lock()
	s.failed = err
	s.mu.Unlock()
	return err
}

// name makes an error one of this package.
func (s *Store) name(err error) error {
	var known *CorruptError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &known):
		known.Path = s.path
		return known
	case isDamage(err):
		return &CorruptError{Path: s.path, Reason: "its tree", Err: err}
	}
	return fmt.Errorf("dedupe: %s: %w", s.path, err)
}

func isDamage(err error) bool {
	var damage *boltfile.DamageError
	return errors.As(err, &damage)
}
