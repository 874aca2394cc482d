package dedupe

import (
	"bytes"
	"encoding/binary"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/buffstreams/watermill-buffstreams/store"
)

// Record is what a Store has of one stream.
type Record struct {
	ID    store.StreamID
	State store.StreamState // its Secret must not be disclosed or logged
	Saved time.Time         // of the last Save, to the second; zero: it is not known
}

// List calls f for each record, those of a publisher side by side, until it returns an error, which List returns. f
// must not call the Store. What f is given is its own. It is for those who look into a file: a listener needs only
// Load.
func (s *Store) List(f func(Record) error) error {
	var failed error
	err := s.view(func(tx *bolt.Tx) error {
		return tx.Bucket(streamsBucket).ForEach(func(k, v []byte) error {
			r, ok := decode(k, v)
			if !ok || len(k) < publisherSize+8 {
				return damaged("a record")
			}
			one := Record{State: r.state}
			copy(one.ID.Publisher[:], k)
			one.ID.Stream = binary.BigEndian.Uint64(k[publisherSize:])
			one.ID.Topic = string(bytes.Clone(k[publisherSize+8:]))
			if r.saved > 0 {
				one.Saved = time.Unix(r.saved, 0)
			}
			failed = f(one)
			return failed
		})
	})
	if failed != nil {
		return failed // as f returned it
	}
	return err
}

// publisherSize is the length of a publisher's id in a key, in bytes.
const publisherSize = 16
