package dedupe

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"hash/fnv"

	bolt "go.etcd.io/bbolt"

	"github.com/buffstreams/watermill-buffstreams/store"
)

// The file holds a bucket with a record per stream, and one with the totals.
var (
	bucket    = []byte("streams")
	about     = []byte("about")
	keyTotals = []byte("totals")

	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

const formatVersion = 1

// begin makes a new file.
func begin(tx *bolt.Tx) error {
	for _, name := range [][]byte{bucket, about} {
		if _, err := tx.CreateBucket(name); err != nil {
			return err
		}
	}
	return (&totals{}).write(tx)
}

// totals says what records there are: a page that is lost with some of them, or one that is older than the others, does not
// go unnoticed.
type totals struct {
	count uint64
	sum   uint64 // of the hashes of all records
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

// remove takes a record out, if there is one.
func (t *totals) remove(k, v []byte) {
	if v != nil {
		t.count--
		t.sum -= hash(k, v)
	}
}

func (t *totals) write(tx *bolt.Tx) error {
	v := binary.BigEndian.AppendUint64([]byte{formatVersion}, t.count)
	v = binary.BigEndian.AppendUint64(v, t.sum)
	return tx.Bucket(about).Put(keyTotals, seal(keyTotals, v))
}

func readTotals(tx *bolt.Tx) (t totals, err error) {
	if tx.Bucket(bucket) == nil || tx.Bucket(about) == nil {
		return t, damaged("it has no records of this package")
	}
	v, ok := unseal(keyTotals, tx.Bucket(about).Get(keyTotals))
	if !ok || len(v) != 1+8+8 {
		return t, damaged("its totals")
	}
	if v[0] != formatVersion {
		return t, fmt.Errorf("format %d is not one that this version knows", v[0])
	}
	return totals{count: binary.BigEndian.Uint64(v[1:]), sum: binary.BigEndian.Uint64(v[9:])}, nil
}

// verify reads all records.
func verify(tx *bolt.Tx) error {
	want, err := readTotals(tx)
	if err != nil {
		return err
	}
	got := totals{}
	err = tx.Bucket(bucket).ForEach(func(k, v []byte) error {
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

func damaged(format string, args ...any) error {
	return &CorruptError{Reason: fmt.Sprintf(format, args...)}
}

// seal closes a value by a checksum that covers its key too.
func seal(k, v []byte) []byte {
	return binary.BigEndian.AppendUint32(v, checksum(k, v))
}

func unseal(k, v []byte) (content []byte, ok bool) {
	n := len(v) - 4
	if n < 0 || checksum(k, v[:n]) != binary.BigEndian.Uint32(v[n:]) {
		return nil, false
	}
	return v[:n], true
}

func checksum(k, v []byte) uint32 { return crc32.Update(crc32.Checksum(k, castagnoli), castagnoli, v) }

// key is publisher, stream in big-endian, topic: the streams of a publisher lie together.
func key(id store.StreamID) []byte {
	k := append([]byte(nil), id.Publisher[:]...)
	k = binary.BigEndian.AppendUint64(k, id.Stream)
	return append(k, id.Topic...)
}

// A value is epoch, secret, then the settled ranges, first and last, each as the distance from the number before it, and a
// checksum.
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
