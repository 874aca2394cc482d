package dedupe

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"hash/fnv"
	"maps"
	"slices"

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

// formatVersion is what is written. A file of format 1 is read, and is of the present format with its next write.
const formatVersion = 2

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
	if v[0] < 1 || v[0] > formatVersion {
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

// record is the value of a stream.
type record struct {
	state store.StreamState
	saved int64 // when it was saved, in seconds since 1970; 0: not known
}

// encode returns the value of key k: epoch, secret, the settled ranges, and a checksum. Behind the ranges comes a 0,
// which no range begins with, and then what format 1 did not have: the time, the incarnation, and the ranges of each
// group.
func encode(k []byte, r record) []byte {
	v := binary.AppendUvarint(nil, r.state.Epoch)
	v = append(v, r.state.Secret[:]...)
	v = append(appendRanges(v, r.state.Settled), 0)
	v = binary.AppendUvarint(v, uint64(r.saved))
	v = append(v, r.state.Incarnation[:]...)
	for _, group := range slices.Sorted(maps.Keys(r.state.Groups)) {
		v = binary.AppendUvarint(v, uint64(len(group)))
		v = append(v, group...)
		v = append(appendRanges(v, r.state.Groups[group]), 0)
	}
	return seal(k, v)
}

// appendRanges appends ranges. The numbers of a range, first and last, are distances from the number before.
func appendRanges(v []byte, ranges []store.Range) []byte {
	at := uint64(0)
	for _, r := range ranges {
		v = binary.AppendUvarint(v, r.First-at)
		v = binary.AppendUvarint(v, r.Last-r.First)
		at = r.Last
	}
	return v
}

func decode(k, v []byte) (r record, ok bool) {
	if v, ok = unseal(k, v); !ok {
		return r, false
	}
	d := decoder{b: v}
	r.state.Epoch = d.uvarint()
	d.copy(r.state.Secret[:])
	r.state.Settled = d.ranges(true)
	if !d.ended { // of format 1
		return r, !d.bad
	}
	r.saved = int64(d.uvarint())
	d.copy(r.state.Incarnation[:])
	for len(d.b) > 0 && !d.bad {
		group := string(d.take(d.uvarint()))
		if _, twice := r.state.Groups[group]; twice {
			return r, false
		}
		if r.state.Groups == nil {
			r.state.Groups = map[string][]store.Range{}
		}
		r.state.Groups[group] = d.ranges(false)
	}
	return r, !d.bad
}

// decoder reads a record. bad is set by what does not belong there.
type decoder struct {
	b     []byte
	bad   bool
	ended bool // the ranges that were read last had an end
}

func (d *decoder) uvarint() uint64 {
	n, width := binary.Uvarint(d.b)
	if width <= 0 {
		d.bad, d.b = true, nil
		return 0
	}
	d.b = d.b[width:]
	return n
}

func (d *decoder) take(n uint64) []byte {
	if n > uint64(len(d.b)) {
		d.bad, d.b = true, nil
		return nil
	}
	taken := d.b[:n]
	d.b = d.b[n:]
	return taken
}

func (d *decoder) copy(dst []byte) { copy(dst, d.take(uint64(len(dst)))) }

// ranges reads ranges up to the 0 behind them, which may be missing at the end of a record of format 1.
func (d *decoder) ranges(mayEnd bool) (ranges []store.Range) {
	at := uint64(0)
	for d.ended = false; !d.ended && !d.bad && (len(d.b) > 0 || !mayEnd); {
		first := d.uvarint()
		if first == 0 {
			d.ended = true
			return ranges
		}
		first += at
		last := first + d.uvarint()
		if last < first || first <= at {
			d.bad = true
			return nil
		}
		ranges = append(ranges, store.Range{First: first, Last: last})
		at = last
	}
	return ranges
}
