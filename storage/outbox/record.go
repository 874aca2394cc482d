package outbox

import (
	"encoding/binary"
	"errors"
	"hash/crc32"

	"github.com/buffstreams/watermill-buffstreams/store"
)

// A commit writes one entry: a header, then records. docs/outbox.md draws both. The checksum is seeded with the
// outbox's id, so that no bytes of another outbox, nor of a message that looks like an entry, pass for an entry of this
// one.
const (
	entryMagic  = 0x6f62_7831 // "obx1"
	entryHeader = 20

	recordStream   = 1 // gives a key its stream number
	recordMessages = 2
	recordSettled  = 3
	recordForget   = 4
)

var (
	errShortEntry = errors.New("truncated")
	errEntryMagic = errors.New("not an entry of this outbox")
	errEntryCRC   = errors.New("checksum mismatch")
	errEntryIndex = errors.New("entry of another place in the log")
	errRecord     = errors.New("malformed record")

	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// sealEntry fills in the header of entry, whose first entryHeader bytes are reserved for it.
func sealEntry(entry []byte, index uint64, seed uint32) {
	binary.BigEndian.PutUint32(entry, entryMagic)
	binary.BigEndian.PutUint64(entry[8:], index)
	binary.BigEndian.PutUint32(entry[16:], uint32(len(entry)-entryHeader))
	binary.BigEndian.PutUint32(entry[4:], crc32.Update(seed, castagnoli, entry[8:]))
}

// openEntry verifies the entry that data begins with, and returns its index and its records.
func openEntry(data []byte, seed uint32) (index uint64, records []byte, err error) {
	if len(data) < entryHeader {
		return 0, nil, errShortEntry
	}
	if binary.BigEndian.Uint32(data) != entryMagic {
		return 0, nil, errEntryMagic
	}
	index = binary.BigEndian.Uint64(data[8:])
	size := uint64(binary.BigEndian.Uint32(data[16:])) + entryHeader
	if size > uint64(len(data)) {
		return index, nil, errShortEntry
	}
	if crc32.Update(seed, castagnoli, data[8:size]) != binary.BigEndian.Uint32(data[4:]) {
		return index, nil, errEntryCRC
	}
	return index, data[entryHeader:size], nil
}

// openEntryAt is openEntry for an entry whose index is known.
func openEntryAt(data []byte, index uint64, seed uint32) ([]byte, error) {
	got, records, err := openEntry(data, seed)
	if err == nil && got != index {
		err = errEntryIndex
	}
	return records, err
}

// record is a decoded record. Which fields are set depends on its kind.
type record struct {
	kind    byte
	stream  uint64
	key     store.Key // recordStream
	first   uint64    // recordMessages
	count   uint64    // recordMessages
	origin  origin    // recordMessages
	through uint64    // recordSettled
	payload []byte    // recordMessages: length and bytes, count times
}

func appendStreamRecord(b []byte, id uint64, key store.Key) []byte {
	b = append(b, recordStream)
	b = binary.AppendUvarint(b, id)
	b = appendString(b, key.Destination)
	return appendString(b, key.Topic)
}

func appendMessagesHeader(b []byte, k extentKey, first uint64, count, size int) []byte {
	b = append(b, recordMessages)
	for _, v := range [...]uint64{k.stream, k.origin.segment, k.origin.part, first} {
		b = binary.AppendUvarint(b, v)
	}
	b = binary.BigEndian.AppendUint32(b, uint32(count))
	return binary.BigEndian.AppendUint32(b, uint32(size))
}

// patchMessagesHeader sets count and size of the record whose payload begins at start. They have a fixed width, so that
// the last record can grow.
func patchMessagesHeader(b []byte, start, count, size int) {
	binary.BigEndian.PutUint32(b[start-8:], uint32(count))
	binary.BigEndian.PutUint32(b[start-4:], uint32(size))
}

func appendSettledRecord(b []byte, stream, through uint64) []byte {
	b = append(b, recordSettled)
	return binary.AppendUvarint(binary.AppendUvarint(b, stream), through)
}

func appendForgetRecord(b []byte, stream uint64) []byte {
	return binary.AppendUvarint(append(b, recordForget), stream)
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// payloadSize returns the encoded size of messages.
func payloadSize(messages [][]byte) int {
	size := 0
	for _, m := range messages {
		size += uvarintLen(uint64(len(m))) + len(m)
	}
	return size
}

func uvarintLen(v uint64) int {
	n := 1
	for ; v >= 0x80; v >>= 7 {
		n++
	}
	return n
}

// cost returns what count messages with a payload of size bytes count against the quota.
func cost(size, count int) int64 { return int64(size) + int64(count)*MessageOverhead }

// decoder reads the encodings above from b. Once a value cannot be read, bad is true, b is empty, and further values
// are 0.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.b, d.bad = nil, true
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) uint32() uint64 {
	if len(d.b) < 4 {
		d.b, d.bad = nil, true
		return 0
	}
	v := binary.BigEndian.Uint32(d.b)
	d.b = d.b[4:]
	return uint64(v)
}

// bytes returns a part of b that its length precedes.
func (d *decoder) bytes() []byte { return d.take(d.uvarint()) }

func (d *decoder) take(n uint64) []byte {
	if n > uint64(len(d.b)) {
		d.b, d.bad = nil, true
		return nil
	}
	v := d.b[:n:n]
	d.b = d.b[n:]
	return v
}

func (d *decoder) string() string { return string(d.bytes()) }

// record returns the next record. d.b must not be empty, and the caller must check d.bad before it uses the record.
func (d *decoder) record() record {
	r := record{kind: d.b[0]}
	d.b = d.b[1:]
	r.stream = d.uvarint()
	switch r.kind {
	case recordStream:
		r.key = store.Key{Destination: d.string(), Topic: d.string()}
	case recordMessages:
		r.origin = origin{segment: d.uvarint(), part: d.uvarint()}
		r.first, r.count = d.uvarint(), d.uint32()
		r.payload = d.take(d.uint32())
		// Every message takes at least a byte, which bounds count by what the record holds.
		d.bad = d.bad || r.count == 0 || r.first == 0 || r.count > uint64(len(r.payload))
	case recordSettled:
		r.through = d.uvarint()
	case recordForget:
	default:
		d.bad = true
	}
	return r
}

func (r *record) run() run {
	return run{r.extentKey(), r.first, r.count, cost(len(r.payload), int(r.count))}
}

func (r *record) extentKey() extentKey { return extentKey{r.stream, r.origin} }

func (r *record) last() uint64 { return r.first + r.count - 1 }
