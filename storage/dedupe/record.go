package dedupe

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"hash/fnv"

	bolt "go.etcd.io/bbolt"

	"github.com/buffstreams/watermill-buffstreams/store"
)

// The file has a bucket with a record for each stream, and one with the totals.
var (
	streamsBucket = []byte("streams")
	aboutBucket   = []byte("about")
	totalsKey     = []byte("totals")

	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

const formatVersion = 1

// initialize writes the contents of a new file.
func initialize(tx *bolt.Tx) error {
	for _, name := range [][]byte{streamsBucket, aboutBucket} {
		if _, err := tx.CreateBucket(name); err != nil {
			return err
		}
	}
	return (&totals{}).write(tx)
}

// totals sums up all records. It shows that a page with some of them was lost, or that an older page took its place.
type totals struct {
	count uint64
	sum   uint64 // of their hashes
}

func hash(k, v []byte) uint64 {
	h := fnv.New64a()
	_, _ = h.Write(k)
	_, _ = h.Write(v)
	return h.Sum64()
}

func (t *totals) add(k, v []byte) {
	t.count++
	t.sum += hash(k, v)
}

// remove undoes add, unless v is nil: then there is no such record.
func (t *totals) remove(k, v []byte) {
	if v != nil {
		t.count--
		t.sum -= hash(k, v)
	}
}

func (t *totals) write(tx *bolt.Tx) error {
	v := binary.BigEndian.AppendUint64([]byte{formatVersion}, t.count)
	v = binary.BigEndian.AppendUint64(v, t.sum)
	return tx.Bucket(aboutBucket).Put(totalsKey, seal(totalsKey, v))
}

func readTotals(tx *bolt.Tx) (t totals, err error) {
	if tx.Bucket(streamsBucket) == nil || tx.Bucket(aboutBucket) == nil {
		return t, damaged("it has no records of this package")
	}
	v, ok := unseal(totalsKey, tx.Bucket(aboutBucket).Get(totalsKey))
	if !ok || len(v) != 1+8+8 {
		return t, damaged("the totals")
	}
	if v[0] != formatVersion {
		return t, fmt.Errorf("format %d is not one that this version knows", v[0])
	}
	return totals{count: binary.BigEndian.Uint64(v[1:]), sum: binary.BigEndian.Uint64(v[9:])}, nil
}

// verify reads all records, and compares them with the totals.
func verify(tx *bolt.Tx) error {
	want, err := readTotals(tx)
	if err != nil {
		return err
	}
	got := totals{}
	err = tx.Bucket(streamsBucket).ForEach(func(k, v []byte) error {
		if _, ok := decode(k, v); !ok {
			return damaged("record %d", got.count+1)
		}
		got.add(k, v)
		return nil
	})
	if err == nil && got != want {
		err = damaged("it has %d records and should have %d, or others", got.count, want.count)
	}
	return err
}

// seal appends a checksum to v, which covers k too.
func seal(k, v []byte) []byte {
	return binary.BigEndian.AppendUint32(v, checksum(k, v))
}

// unseal verifies the checksum of v and returns the rest.
func unseal(k, v []byte) (content []byte, ok bool) {
	n := len(v) - 4
	if n < 0 || checksum(k, v[:n]) != binary.BigEndian.Uint32(v[n:]) {
		return nil, false
	}
	return v[:n], true
}

func checksum(k, v []byte) uint32 { return crc32.Update(crc32.Checksum(k, castagnoli), castagnoli, v) }

// key returns publisher, stream in big endian, and topic, so that the streams of a publisher lie side by side.
func key(id store.StreamID) []byte {
	k := append([]byte(nil), id.Publisher[:]...)
	k = binary.BigEndian.AppendUint64(k, id.Stream)
	return append(k, id.Topic...)
}

// encode returns the value of key k: epoch, secret, the settled ranges, and a checksum. The numbers of a range, first
// and last, are distances from the number before.
func encode(k []byte, state store.StreamState) []byte {
	v := binary.AppendUvarint(nil, state.Epoch)
	v = append(v, state.Secret[:]...)
	at := uint64(0)
	for _, r := range state.Settled {
		v = binary.AppendUvarint(v, r.First-at)
		v = binary.AppendUvarint(v, r.Last-r.First)
		at = r.Last
	}
	return seal(k, v)
}

func decode(k, v []byte) (state store.StreamState, ok bool) {
	if v, ok = unseal(k, v); !ok {
		return state, false
	}
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
		state.Settled = append(state.Settled, store.Range{First: first, Last: last})
		at = last
	}
	return state, true
}
