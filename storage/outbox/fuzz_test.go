package outbox

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/store"
)

// FuzzEntry opens bytes as an entry, and damages one that was sealed.
func FuzzEntry(f *testing.F) {
	sealed := append(make([]byte, entryHeader), "records"...)
	sealEntry(sealed, 7, 9)
	f.Add(sealed, uint64(7), uint16(5), byte(0))
	f.Add([]byte{}, uint64(0), uint16(0), byte(1))
	f.Add([]byte("\x6f\x62\x78\x31\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\xff\xff\xff\xff"), uint64(1), uint16(19), byte(8))
	f.Fuzz(func(t *testing.T, data []byte, index uint64, at uint16, flip byte) {
		const seed = 9
		if _, records, err := openEntry(data, seed); err == nil {
			require.LessOrEqual(t, len(records), len(data)-entryHeader)
			again := append(make([]byte, entryHeader), records...)
			sealEntry(again, index, seed)
			got, err := openEntryAt(again, index, seed)
			require.NoError(t, err)
			require.True(t, bytes.Equal(records, got))
		}
		sealed := append(make([]byte, entryHeader), data...)
		sealEntry(sealed, index, seed)
		got, err := openEntryAt(append(slices.Clone(sealed), "what follows in the file"...), index, seed)
		require.NoError(t, err)
		require.True(t, bytes.Equal(data, got))
		_, err = openEntryAt(sealed, index+1, seed)
		require.ErrorIs(t, err, errEntryIndex)
		_, err = openEntryAt(sealed, index, seed+1)
		require.ErrorIs(t, err, errEntryCRC)
		_, err = openEntryAt(sealed[:len(sealed)-1], index, seed)
		require.Error(t, err)
		sealed[int(at)%len(sealed)] ^= flip
		_, err = openEntryAt(sealed, index, seed)
		require.Equal(t, flip == 0, err == nil)
	})
}

func recordSeeds() [][]byte {
	key := store.Key{Destination: "127.0.0.1:1", Topic: "orders"}
	messages := appendMessagesHeader(nil, extentKey{stream: 1}, 1, 2, 6)
	messages = appendString(appendString(messages, "ab"), "cd")
	whole := append(appendStreamRecord(nil, 1, key), messages...)
	whole = appendSettledRecord(whole, 1, 2)
	return [][]byte{
		whole, appendForgetRecord(slices.Clone(whole), 1), messages,
		appendMessagesHeader(nil, extentKey{1, origin{3, 4}}, 1, -1, -1),
		appendMessagesHeader(appendStreamRecord(nil, 1, key), extentKey{stream: 1}, ^uint64(0), 1, 0),
		appendSettledRecord(nil, 1, ^uint64(0)),
		append(appendStreamRecord(nil, 1, key), appendStreamRecord(nil, 2, key)...),
	}
}

// FuzzRecords replays the records of an entry, as Open does with those of the last segment, and encodes again what it
// has read of each: it must read the same.
func FuzzRecords(f *testing.F) {
	for _, seed := range recordSeeds() {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for d := (decoder{b: data}); len(d.b) > 0; {
			r := d.record()
			if d.bad {
				break
			}
			require.LessOrEqual(t, r.count, uint64(len(r.payload)), "a message takes a byte at least")
			again := decoder{b: appendRecord(r)}
			require.Equal(t, r, again.record())
			require.Empty(t, again.b)
		}
		for _, fresh := range []bool{true, false} {
			ix := newIndex()
			err := ix.replay(&segmentFile{}, map[extentKey]*extent{}, 1, data, fresh)
			for _, s := range ix.byID {
				require.LessOrEqual(t, s.settled.through, s.durable-1)
				require.Equal(t, s.durable, s.next)
			}
			if !fresh {
				require.Empty(t, ix.byID)
			}
			if err != nil {
				require.ErrorIs(t, err, errRecord)
			}
		}
	})
}

func appendRecord(r record) []byte {
	switch r.kind {
	case recordStream:
		return appendStreamRecord(nil, r.stream, r.key)
	case recordMessages:
		return append(appendMessagesHeader(nil, r.extentKey(), r.first, int(r.count), len(r.payload)), r.payload...)
	case recordSettled:
		return appendSettledRecord(nil, r.stream, r.through)
	}
	return appendForgetRecord(nil, r.stream)
}

// FuzzState decodes what the meta store keeps besides the manifest.
func FuzzState(f *testing.F) {
	ix := newIndex()
	s := ix.addStream(3, store.Key{Destination: "a:1", Topic: "t"})
	s.defined, s.durable = true, 100
	s.settled.add(store.Range{First: 1, Last: 5}, nil)
	s.settled.add(store.Range{First: 9, Last: 20}, nil)
	f.Add(ix.encodeStreams(7))
	f.Add(newIdentity().encode())
	segment := &segmentFile{last: 9}
	segment.extents = []*extent{{stream: s, first: 1, last: 9, firstEntry: 1, lastEntry: 9, count: 9, bytes: 99, pending: 1}}
	f.Add(ix.encodeSummary(segment))
	f.Add(append([]byte{stateVersion, 1, 1, 1, 0, 0, 1, 0}, binary.AppendUvarint(nil, ^uint64(0))...))
	f.Fuzz(func(t *testing.T, data []byte) {
		if who, ok := decodeIdentity(data); ok {
			require.Equal(t, data, who.encode())
		}
		ix := newIndex()
		if last, ok := ix.decodeStreams(data); ok {
			again := newIndex()
			got, ok := again.decodeStreams(ix.encodeStreams(last))
			require.True(t, ok)
			require.Equal(t, last, got)
			require.Len(t, again.byID, len(ix.byID))
			for id, s := range ix.byID {
				require.Equal(t, s.key, again.byID[id].key)
				require.Equal(t, s.settled, again.byID[id].settled)
			}
		}
		ix = newIndex()
		ix.addStream(3, store.Key{})
		segment := &segmentFile{}
		if ix.decodeSummary(segment, data) {
			require.LessOrEqual(t, len(segment.extents), len(data)/9)
		}
	})
}

// FuzzDamagedOutbox changes bytes of an outbox's files and meta store, then opens and reads it: that succeeds or says
// what is damaged, and never gives out anything that was not appended.
func FuzzDamagedOutbox(f *testing.F) {
	f.Add(byte(0), uint16(100), byte(1), false)
	f.Add(byte(1), uint16(3000), byte(0), true)
	f.Add(byte(2), uint16(17), byte(0xff), false)
	f.Add(byte(200), uint16(3), byte(4), false)
	f.Fuzz(func(t *testing.T, which byte, at uint16, flip byte, truncate bool) {
		const total = 300
		d := newMemDisk(1)
		cfg := d.config()
		cfg.CacheBytes = -1
		o, err := Open(cfg)
		require.NoError(t, err)
		fill(t, o, orders, 1, total, 5)
		require.NoError(t, o.Settle(orders, 7))
		crashed := d.restart(uint64(which))
		require.NoError(t, o.Close())
		crashed.damageAny(which, int(at), flip, truncate)

		o, err = Open(crashed.configWith(cfg))
		var damage *store.CorruptError
		if err != nil {
			require.ErrorAs(t, err, &damage)
			return
		}
		defer func() { require.NoError(t, o.Close()) }()
		for from := uint64(1); ; {
			b, err := o.Read(orders, from, 1000)
			if errors.Is(err, store.ErrUnknownStream) {
				return
			}
			if err != nil {
				require.ErrorAs(t, err, &damage)
				require.GreaterOrEqual(t, damage.From, from)
				require.LessOrEqual(t, damage.From, damage.Through)
				from = damage.Through + 1
				continue
			}
			if len(b.Messages) == 0 {
				require.LessOrEqual(t, b.First, uint64(total+1))
				return
			}
			for i, m := range b.Messages {
				require.Equal(t, string(message(b.First+uint64(i))), string(m))
			}
			from = b.Next()
		}
	})
}

// damageAny changes one byte of a file or of a value of the meta store, or truncates the file there.
func (d *memDisk) damageAny(which byte, at int, flip byte, truncate bool) {
	var keys []string
	for k := range d.meta.stable {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	if names := d.names(); which < 128 && len(names) > 0 {
		file := d.files[names[int(which)%len(names)]]
		if n := len(file.current); n > 0 && truncate {
			file.current = file.current[:at%n]
		} else if n > 0 {
			file.current[at%n] ^= flip
		}
		file.durable = slices.Clone(file.current)
		return
	}
	if len(keys) > 0 {
		if v := d.meta.stable[keys[int(which)%len(keys)]]; len(v) > 0 {
			v[at%len(v)] ^= flip
		}
	}
}
