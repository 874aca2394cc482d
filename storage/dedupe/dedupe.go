// Package dedupe keeps the state of a store.DedupeStore in a file, so that a subscriber that restarts remembers which
// messages it has handled.
package dedupe

import (
	"bytes"
	"cmp"
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
	db    *boltfile.DB
	cfg   Config
	now   func() time.Time
	sweep time.Time // when idle records are looked for next; guarded by writing

	writing sync.Mutex // held during a write to the disk: after one that fails, no other may begin
	mu      sync.Mutex // guards failed
	failed  error      // wraps ErrFailed
}

var _ store.DedupeStore = (*Store)(nil)

// lockTimeout is how long Open waits for a process that is about to end.
const lockTimeout = time.Second

// DefaultForgetAfter is how long the record of an idle stream is kept.
const DefaultForgetAfter = 30 * 24 * time.Hour

// Config configures a Store. Only Path is required.
type Config struct {
	// Path is the path of the file.
	Path string
	// ForgetAfter is how long the record of a stream is kept of which nothing was saved: publishers that were killed,
	// or that were away when they closed, leave theirs behind. A publisher that returns later, and does not know that
	// its messages were handled, has them delivered again. 0 means DefaultForgetAfter, and a negative value that all
	// records are kept. Records go when the file is opened, and with a Save now and then.
	ForgetAfter time.Duration
}

// Open opens the file at path with the defaults of [Config].
func Open(path string) (*Store, error) { return OpenConfig(Config{Path: path}) }

// OpenConfig opens the file, and creates it if there is none, readable by its owner only; the directory must exist. It
// reads the whole file once. It returns [ErrLocked] if another process, or another Store of this process, still has the
// file open after one second, and a [*CorruptError] if the file cannot be trusted. The caller must close the Store.
func OpenConfig(cfg Config) (*Store, error) {
	cfg.ForgetAfter = cmp.Or(cfg.ForgetAfter, DefaultForgetAfter)
	return open(cfg, time.Now)
}

func open(cfg Config, now func() time.Time) (*Store, error) {
	path := cfg.Path
	db, err := boltfile.Open(path, lockTimeout, initialize)
	switch {
	case errors.Is(err, boltfile.ErrLocked):
		return nil, ErrLocked
	case isDamage(err):
		return nil, &CorruptError{Path: path, Reason: "the B-tree", Err: err}
	case err != nil:
		return nil, fmt.Errorf("dedupe: cannot open %s: %w", path, err)
	}
	s := &Store{db: db, cfg: cfg, now: now}
	s.sweep = now().Add(s.sweepAfter())
	if err := s.view(verify); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	if err := s.forgetIdle(); err != nil {
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
		var r record
		if r, ok = decode(k, value); !ok {
			return damaged("the record of stream %d to %.100q", id.Stream, id.Topic)
		}
		state = r.state
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
		now := s.now()
		b := tx.Bucket(streamsBucket)
		for id, state := range states {
			k := key(id)
			t.remove(k, b.Get(k))
			v := encode(k, record{state, now.Unix()})
			if err := b.Put(k, v); err != nil {
				return err
			}
			t.add(k, v)
		}
		if !now.Before(s.sweep) {
			if err := s.removeIdle(b, &t, now); err != nil {
				return err
			}
		}
		return t.write(tx)
	})
}

// forgetIdle removes the records of idle streams, if there are any.
func (s *Store) forgetIdle() error {
	now, due := s.now(), false
	err := s.view(func(tx *bolt.Tx) error {
		return tx.Bucket(streamsBucket).ForEach(func(k, v []byte) error {
			r, ok := decode(k, v)
			due = due || ok && (s.idle(r, now) || r.saved == 0)
			return nil
		})
	})
	if err != nil || !due {
		return err
	}
	return s.update(func(tx *bolt.Tx) error {
		t, err := readTotals(tx)
		if err != nil {
			return err
		}
		if err := s.removeIdle(tx.Bucket(streamsBucket), &t, now); err != nil {
			return err
		}
		return t.write(tx)
	})
}

// idle tells whether nothing was saved of a stream for long.
func (s *Store) idle(r record, now time.Time) bool {
	return s.cfg.ForgetAfter > 0 && r.saved > 0 && now.Sub(time.Unix(r.saved, 0)) >= s.cfg.ForgetAfter
}

// maxSweep is the longest time between two looks for idle records.
const maxSweep = 24 * time.Hour

func (s *Store) sweepAfter() time.Duration {
	if s.cfg.ForgetAfter < 0 {
		return maxSweep
	}
	return max(time.Second, min(s.cfg.ForgetAfter/4, maxSweep))
}

// removeIdle removes the records of idle streams. Those of format 1, whose time is not known, get the present one. The
// caller must hold writing.
func (s *Store) removeIdle(b *bolt.Bucket, t *totals, now time.Time) error {
	s.sweep = now.Add(s.sweepAfter())
	var idle [][]byte
	undated := map[string]record{}
	err := b.ForEach(func(k, v []byte) error {
		r, ok := decode(k, v)
		switch {
		case ok && r.saved == 0:
			undated[string(k)] = r
		case ok && s.idle(r, now):
			idle = append(idle, bytes.Clone(k))
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, k := range idle {
		t.remove(k, b.Get(k))
		if err := b.Delete(k); err != nil {
			return err
		}
	}
	for key, r := range undated {
		k := []byte(key)
		t.remove(k, b.Get(k))
		v := encode(k, record{r.state, now.Unix()})
		if err := b.Put(k, v); err != nil {
			return err
		}
		t.add(k, v)
	}
	return nil
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
