package outbox

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/hashicorp/raft-wal/types"

	"github.com/buffstreams/watermill-buffstreams/store"
)

// The keys of the meta store, besides the manifest. docs/outbox.md says what their values hold.
const (
	keyIdentity = "outbox-identity"
	keyLineage  = "outbox-lineage"
	keyStreams  = "outbox-streams"

	stateVersion     = 1
	renouncedVersion = 2 // of an identity that is only the log's
)

func keySummary(segment uint64) string { return fmt.Sprintf("outbox-segment-%016x", segment) }

// identity is what the outbox keeps for its life, and its epoch. Its id and secret are those that receivers know until
// the outbox has renounced them.
type identity struct {
	id, secret [16]byte
	epoch      uint64
	renounced  bool
}

func newIdentity() (i identity) {
	_, _ = rand.Read(i.id[:]) // it never returns an error: the program ends instead
	_, _ = rand.Read(i.secret[:])
	return i
}

func (i identity) encode() []byte {
	b := append([]byte{stateVersion}, i.id[:]...)
	if i.renounced {
		b[0] = renouncedVersion
	}
	b = append(b, i.secret[:]...)
	return binary.BigEndian.AppendUint64(b, i.epoch)
}

func decodeIdentity(b []byte) (i identity, ok bool) {
	if len(b) != 1+16+16+8 || b[0] != stateVersion && b[0] != renouncedVersion {
		return i, false
	}
	i.renounced = b[0] == renouncedVersion
	copy(i.id[:], b[1:])
	copy(i.secret[:], b[17:])
	i.epoch = binary.BigEndian.Uint64(b[33:])
	return i, true
}

// encodeStreams returns the table of streams. It has all that the entries up to last say, and nothing of later ones.
func (ix *index) encodeStreams(last uint64) []byte {
	b := binary.AppendUvarint([]byte{stateVersion}, last)
	b = binary.AppendUvarint(b, ix.nextStream)
	for _, s := range ix.byID {
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

// decodeStreams fills an empty index from the table of streams, and returns the last entry that the table knows.
func (ix *index) decodeStreams(b []byte) (last uint64, ok bool) {
	if len(b) == 0 || b[0] != stateVersion {
		return 0, false
	}
	d := decoder{b: b[1:]}
	last = d.uvarint()
	next := d.uvarint()
	for len(d.b) > 0 {
		id := d.uvarint()
		s := ix.addStream(id, store.Key{Destination: d.string(), Topic: d.string()})
		s.defined = true
		s.durable = d.uvarint()
		s.next = s.durable
		s.settled.through = d.uvarint()
		for n := d.uvarint(); n > 0 && !d.bad; n-- {
			s.settled.ranges = append(s.settled.ranges, store.Range{First: d.uvarint(), Last: d.uvarint()})
		}
	}
	ix.nextStream = max(ix.nextStream, next)
	return last, !d.bad
}

// encodeSummary returns what a later Open must know of a segment that takes no more entries, so that it need not read
// it.
func (ix *index) encodeSummary(f *segmentFile) []byte {
	b := binary.AppendUvarint([]byte{stateVersion}, f.last)
	for _, x := range f.extents {
		// Copies are not attached before their original is gone.
		if _, unfinished := ix.segments[x.origin.segment]; x.pending == 0 && !unfinished {
			continue
		}
		for _, v := range [...]uint64{x.stream.id, x.origin.segment, x.origin.part,
			x.first, x.last, x.firstEntry, x.lastEntry, x.count, uint64(x.bytes)} {
			b = binary.AppendUvarint(b, v)
		}
	}
	return b
}

// decodeSummary sets the extents of f, except those of streams that were forgotten.
func (ix *index) decodeSummary(f *segmentFile, b []byte) bool {
	if len(b) == 0 || b[0] != stateVersion {
		return false
	}
	d := decoder{b: b[1:]}
	f.last = d.uvarint()
	for len(d.b) > 0 {
		x := &extent{stream: ix.byID[d.uvarint()], segment: f}
		x.origin = origin{segment: d.uvarint(), part: d.uvarint()}
		x.first, x.last = d.uvarint(), d.uvarint()
		x.firstEntry, x.lastEntry = d.uvarint(), d.uvarint()
		x.count, x.bytes = d.uvarint(), int64(d.uvarint())
		if x.stream != nil {
			f.extents = append(f.extents, x)
		}
	}
	return !d.bad
}

// metaStore adds a checksum to each value of the engine's meta store. It returns an error where the B-tree of that
// store panics on a damaged page.
type metaStore struct{ types.MetaStore }

func (m metaStore) get(key string) (value []byte, err error) {
	defer recoverDamage(&err)
	b, err := m.GetStable([]byte(key))
	if err != nil || b == nil {
		return nil, err
	}
	n := len(b) - 4
	if n < 0 || crc32.Checksum(b[:n], castagnoli) != binary.BigEndian.Uint32(b[n:]) {
		return nil, &store.CorruptError{Reason: "checksum mismatch of " + key}
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

// recoverDamage must be deferred. It sets err if the function panics.
func recoverDamage(err *error) { //nolint:gocritic // the result of the function that defers it
	if p := recover(); p != nil {
		*err = &store.CorruptError{Reason: fmt.Sprintf("meta store: %v", p)}
	}
}
