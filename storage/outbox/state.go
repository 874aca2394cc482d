package outbox

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/hashicorp/raft-wal/types"

	"github.com/buffstreams/watermill-buffstreams/store"
)

// What the meta store holds besides the manifest. Every value ends in a CRC32C.
const (
	keyIdentity = "outbox-identity"
	keyStreams  = "outbox-streams"

	stateVersion = 1
)

func keySummary(segment uint64) string { return fmt.Sprintf("outbox-segment-%016x", segment) }

type identity struct {
	id, secret [16]byte
	epoch      uint64
}

func newIdentity() (who identity) {
	_, _ = rand.Read(who.id[:]) // never fails: the program ends instead
	_, _ = rand.Read(who.secret[:])
	return who
}

func (who identity) encode() []byte {
	b := append([]byte{stateVersion}, who.id[:]...)
	b = append(b, who.secret[:]...)
	return binary.BigEndian.AppendUint64(b, who.epoch)
}

func decodeIdentity(b []byte) (who identity, ok bool) {
	if len(b) != 1+16+16+8 || b[0] != stateVersion {
		return who, false
	}
	copy(who.id[:], b[1:])
	copy(who.secret[:], b[17:])
	who.epoch = binary.BigEndian.Uint64(b[33:])
	return who, true
}

// encodeStreams writes the table of streams as it is durable: everything that
// entries up to last say is in it. mu is held.
func (o *Outbox) encodeStreams(last uint64) []byte {
	b := binary.AppendUvarint([]byte{stateVersion}, last)
	b = binary.AppendUvarint(b, o.nextStream)
	for _, s := range o.byID {
		if !s.defined {
			continue
		}
		b = binary.AppendUvarint(b, s.id)
		b = appendString(b, s.key.Destination)
		b = appendString(b, s.key.Topic)
		b = binary.AppendUvarint(b, s.durable)
		b = binary.AppendUvarint(b, s.settled.through)
		b = binary.AppendUvarint(b, uint64(len(s.settled.ranges)))
		for _, r := range s.settled.ranges {
			b = binary.AppendUvarint(binary.AppendUvarint(b, r.First), r.Last)
		}
	}
	return b
}

// decodeStreams fills the empty index from the table and returns the entry that
// the table is as of.
func (o *Outbox) decodeStreams(b []byte) (last uint64, ok bool) {
	if len(b) == 0 || b[0] != stateVersion {
		return 0, false
	}
	d := decoder{b: b[1:]}
	last = d.uvarint()
	next := d.uvarint()
	for len(d.b) > 0 {
		id := d.uvarint()
		s := o.addStream(id, store.Key{Destination: d.string(), Topic: d.string()})
		s.defined = true
		s.durable = d.uvarint()
		s.next = s.durable
		s.settled.through = d.uvarint()
		for n := d.uvarint(); n > 0 && !d.bad; n-- {
			s.settled.ranges = append(s.settled.ranges, store.Range{First: d.uvarint(), Last: d.uvarint()})
		}
	}
	o.nextStream = max(o.nextStream, next)
	return last, !d.bad
}

// encodeSummary writes what a later Open needs to know of a segment that takes
// no more entries, so that it need not read it. mu is held.
func (o *Outbox) encodeSummary(f *segmentFile) []byte {
	b := binary.AppendUvarint([]byte{stateVersion}, f.last)
	for _, x := range f.extents {
		// Moved messages count from when their origin is gone.
		if _, waiting := o.segments[x.from.segment]; x.live == 0 && !waiting {
			continue
		}
		for _, v := range [...]uint64{x.stream.id, x.from.segment, x.from.part,
			x.first, x.last, x.lo, x.hi, x.count, uint64(x.size)} {
			b = binary.AppendUvarint(b, v)
		}
	}
	return b
}

// decodeSummary fills the extents of f. Those of forgotten streams are left out.
func (o *Outbox) decodeSummary(f *segmentFile, b []byte) bool {
	if len(b) == 0 || b[0] != stateVersion {
		return false
	}
	d := decoder{b: b[1:]}
	f.last = d.uvarint()
	for len(d.b) > 0 {
		x := &extent{stream: o.byID[d.uvarint()], segment: f}
		x.from = origin{segment: d.uvarint(), part: d.uvarint()}
		x.first, x.last = d.uvarint(), d.uvarint()
		x.lo, x.hi = d.uvarint(), d.uvarint()
		x.count, x.size = d.uvarint(), int64(d.uvarint())
		if x.stream != nil {
			f.extents = append(f.extents, x)
		}
	}
	return !d.bad
}

// metaStore adds checksums to the engine's meta store, and turns the panics
// with which its B-tree meets damaged pages into errors.
type metaStore struct{ types.MetaStore }

func (m metaStore) get(key string) (value []byte, err error) {
	defer recoverDamage(&err)
	b, err := m.GetStable([]byte(key))
	if err != nil || b == nil {
		return nil, err
	}
	n := len(b) - 4
	if n < 0 || crc32.Checksum(b[:n], castagnoli) != binary.BigEndian.Uint32(b[n:]) {
		return nil, &store.CorruptError{Reason: "checksum of " + key}
	}
	return b[:n], nil
}

func (m metaStore) set(key string, value []byte) (err error) {
	defer recoverDamage(&err)
	value = binary.BigEndian.AppendUint32(value, crc32.Checksum(value, castagnoli))
	return m.SetStable([]byte(key), value)
}

func (m metaStore) remove(key string) (err error) {
	defer recoverDamage(&err)
	return m.SetStable([]byte(key), nil)
}

func (m metaStore) Load(dir string) (state types.PersistentState, err error) {
	defer recoverDamage(&err)
	return m.MetaStore.Load(dir)
}

func (m metaStore) CommitState(state types.PersistentState) (err error) {
	defer recoverDamage(&err)
	return m.MetaStore.CommitState(state)
}

func recoverDamage(err *error) {
	if p := recover(); p != nil {
		*err = &store.CorruptError{Reason: fmt.Sprintf("meta store: %v", p)}
	}
}
