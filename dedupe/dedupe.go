// Package dedupe keeps a listener's DedupeStore in a file.
package dedupe

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/buffstreams/watermill-buffstreams/pool"
)

// ErrLocked means that another process has the file open.
var ErrLocked = errors.New("dedupe: the file is in use: only one process can open it at a time")

// CorruptError says that a record of the file cannot be read.
type CorruptError struct{ Stream pool.StreamID }

func (e *CorruptError) Error() string {
	return fmt.Sprintf("dedupe: the record of stream %d to %.100q is damaged", e.Stream.Stream, e.Stream.Topic)
}

// Store is a pool.DedupeStore in one file. It is safe for concurrent use; listeners may share it.
//
// The file is a bbolt database: what Save has returned for survives a crash, and a torn write leaves the state before it.
type Store struct{ db *bolt.DB }

var _ pool.DedupeStore = (*Store)(nil)

var bucket = []byte("streams")

// lockPatience is how long Open waits for a process that is about to end.
const lockPatience = time.Second

// Open opens the file, or makes it, readable by its owner only.
func Open(path string) (*Store, error) {
	db, err := bolt.Open(path, 0o600, &bolt.Options{Timeout: lockPatience})
	if errors.Is(err, berrors.ErrTimeout) {
		return nil, ErrLocked
	}
	if err != nil {
		return nil, fmt.Errorf("dedupe: cannot open %s: %w", path, err)
	}
	err = db.Update(func(tx *bolt.Tx) error {
		_, err := tx.CreateBucketIfNotExists(bucket)
		return err
	})
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return &Store{db: db}, nil
}

// Close closes the file. Listeners that still use the store ack nothing more.
func (s *Store) Close() error { return s.db.Close() }

// Load implements pool.DedupeStore.
func (s *Store) Load(id pool.StreamID) (state pool.StreamState, ok bool, err error) {
	err = s.db.View(func(tx *bolt.Tx) error {
		value := tx.Bucket(bucket).Get(key(id))
		if value == nil {
			return nil
		}
		if state, ok = decode(value); !ok {
			return &CorruptError{Stream: id}
		}
		return nil
	})
	return state, ok, err
}

// Save implements pool.DedupeStore.
func (s *Store) Save(states map[pool.StreamID]pool.StreamState) error {
	return s.db.Update(func(tx *bolt.Tx) error {
		b := tx.Bucket(bucket)
		for id, state := range states {
			if err := b.Put(key(id), encode(state)); err != nil {
				return err
			}
		}
		return nil
	})
}

// Forget implements pool.DedupeStore.
func (s *Store) Forget(id pool.StreamID) error {
	return s.db.Update(func(tx *bolt.Tx) error { return tx.Bucket(bucket).Delete(key(id)) })
}

// key is publisher, stream in big-endian, topic: the streams of a publisher lie together.
func key(id pool.StreamID) []byte {
	k := append([]byte(nil), id.Publisher[:]...)
	k = binary.BigEndian.AppendUint64(k, id.Stream)
	return append(k, id.Topic...)
}

// A value is epoch, secret, then the settled ranges: first and last, each as the distance from the number before it.
func encode(state pool.StreamState) []byte {
	v := binary.AppendUvarint(nil, state.Epoch)
	v = append(v, state.Secret[:]...)
	at := uint64(0)
	for _, r := range state.Settled {
		v = binary.AppendUvarint(v, r.First-at)
		v = binary.AppendUvarint(v, r.Last-r.First)
		at = r.Last
	}
	return v
}

func decode(v []byte) (state pool.StreamState, ok bool) {
	next := func() (n uint64) {
		n, width := binary.Uvarint(v)
		if ok = width > 0; ok {
			v = v[width:]
		}
		return n
	}
	state.Epoch = next()
	if !ok || len(v) < len(state.Secret) {
		return state, false
	}
	v = v[copy(state.Secret[:], v):]
	at := uint64(0)
	for len(v) > 0 {
		first := at + next()
		if !ok || len(v) == 0 {
			return state, false
		}
		last := first + next()
		if !ok || last < first || first <= at {
			return state, false
		}
		state.Settled = append(state.Settled, pool.Range{First: first, Last: last})
		at = last
	}
	return state, true
}
