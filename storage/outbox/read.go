package outbox

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/hashicorp/raft-wal/types"

	"github.com/buffstreams/watermill-buffstreams/store"
)

// Read returns durable messages of stream k from sequence from on: as many as fit in maxBytes bytes, but at least one.
// It skips messages that are settled, so First of the batch can be greater than from. It skips no others, and a batch
// has no gap. If there is no message to return, the batch is empty and its First is the sequence to call
// [Outbox.Readable] with.
//
// To read on from Next of the last batch is cheap; any other sequence costs a search of at most one segment. One
// goroutine at a time may read a stream.
//
// Read returns store.ErrUnknownStream if there is no stream k, and a *store.CorruptError that says which messages
// cannot be read.
func (o *Outbox) Read(k store.Key, from uint64, maxBytes int) (store.Batch, error) {
	for {
		b, p, err := o.planRead(k, from, maxBytes)
		if err != nil {
			return store.Batch{}, err
		}
		if p.extent == nil {
			o.noteHanded(k, &b.batch)
			return b.batch, nil
		}
		err = o.readExtent(&p, &b)
		if errors.Is(err, errSegmentRemoved) {
			continue // the index knows where its messages are now
		}
		if err != nil && len(b.batch.Messages) == 0 {
			return store.Batch{}, err
		}
		// Damage behind a good message is for the next Read to report.
		o.setHint(p.stream, hint{extent: p.extent, entry: p.entry, seq: b.next})
		o.noteHanded(k, &b.batch)
		return b.batch, nil
	}
}

// readPlan says where to read: the entries of an extent from entry to lastEntry.
type readPlan struct {
	stream           *stream
	extent           *extent
	entry, lastEntry uint64
	last             uint64 // last sequence of the extent
}

// planRead serves a read from the cache if it can. Otherwise it returns a plan, whose extent is not nil.
func (o *Outbox) planRead(k store.Key, from uint64, maxBytes int) (b batchBuilder, p readPlan, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	s, err := o.streamLocked(k)
	if err != nil {
		return b, p, err
	}
	from = s.settled.next(from)
	end := s.settled.limit(from, s.durable)
	b = batchBuilder{next: from, end: end, left: maxBytes, batch: store.Batch{First: from}}
	if from >= end || b.takeRecent(s) {
		return b, p, nil
	}
	x := s.extentAt(from)
	if x == nil {
		return b, p, s.missing(from)
	}
	p = readPlan{stream: s, extent: x, entry: x.firstEntry, lastEntry: x.lastEntry, last: x.last}
	if s.hint.extent == x && s.hint.seq <= from {
		p.entry = s.hint.entry
	}
	return b, p, nil
}

// noteHanded notes which messages a reader has got, and may send.
func (o *Outbox) noteHanded(k store.Key, b *store.Batch) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if s := o.index.streams[k]; s != nil && len(b.Messages) > 0 {
		s.handed = max(s.handed, b.Next())
	}
}

func (o *Outbox) setHint(s *stream, h hint) {
	o.mu.Lock()
	defer o.mu.Unlock()
	s.hint = h
}

// missing returns the error for pending messages from seq on that no segment holds.
func (s *stream) missing(seq uint64) *store.CorruptError {
	through := s.settled.limit(seq, s.durable) - 1
	for _, x := range s.extents {
		if x.first > seq {
			through = min(through, x.first-1)
			break
		}
	}
	return &store.CorruptError{Reason: "messages that no segment holds", Key: s.key, From: seq, Through: through}
}

// readExtent fills b from the entries of p. If an entry is damaged, readExtent looks at the entries behind it to learn
// how many messages are lost.
func (o *Outbox) readExtent(p *readPlan, b *batchBuilder) error {
	var damage *store.CorruptError
	report := func(reason string, entry uint64, err error) {
		if damage == nil {
			damage = &store.CorruptError{
				File: p.extent.segment.name, Index: entry, Reason: reason, Err: err, Key: p.stream.key, From: b.next,
			}
		}
	}
	for ; p.entry <= p.lastEntry; p.entry++ {
		first, err := o.readRecords(p, b)
		if err != nil && !isDamage(err) {
			return fmt.Errorf("outbox: %w", err)
		}
		if err != nil {
			report("unreadable entry", p.entry, err)
		}
		if first != 0 {
			report("gap before an entry", p.entry, nil)
			damage.Through = first - 1
			return damage
		}
		if b.full() {
			return nil
		}
	}
	p.entry = p.lastEntry // messages that are appended later may follow in this extent
	if b.next < b.end && b.next <= p.last {
		report("gap after an entry", p.lastEntry, nil)
		damage.Through = min(p.last, b.end-1)
		return damage
	}
	return nil
}

// isDamage reports whether err means that an entry is not what was written, rather than that it cannot be read now.
func isDamage(err error) bool {
	for _, d := range []error{errShortEntry, errEntryMagic, errEntryCRC, errEntryIndex, errRecord,
		types.ErrCorrupt, types.ErrNotFound, io.EOF, io.ErrUnexpectedEOF, os.ErrNotExist} {
		if errors.Is(err, d) {
			return true
		}
	}
	return false
}

// readRecords takes messages for b out of one entry. A first other than 0 means that the entry continues the extent
// with message first, although message b.next should come.
func (o *Outbox) readRecords(p *readPlan, b *batchBuilder) (first uint64, err error) {
	buf, records, err := o.readEntry(p.extent.segment, p.entry)
	if err != nil {
		return 0, err
	}
	defer func() { _ = buf.Close() }()
	key := extentKey{p.stream.id, p.extent.origin}
	d := decoder{b: records}
	for len(d.b) > 0 && !b.full() {
		r := d.record()
		if d.bad {
			return 0, errRecord
		}
		if r.kind != recordMessages || r.extentKey() != key || r.last() < b.next {
			continue
		}
		if r.first > b.next {
			return r.first, nil
		}
		// The engine uses the buffer again, so the messages are copied, in one piece.
		b.take(append([]byte(nil), slicePayload(r.payload, b.next-r.first, r.last()-b.next+1)...))
	}
	return 0, nil
}

// readEntry returns the records of an entry, which are valid until the buffer is closed.
func (o *Outbox) readEntry(f *segmentFile, entry uint64) (*types.PooledBuffer, []byte, error) {
	buf, err := f.handle.read(entry)
	if err != nil {
		return nil, nil, err
	}
	records, err := openEntryAt(buf.Bs, entry, o.seed)
	if err != nil {
		_ = buf.Close()
		return nil, nil, err
	}
	return buf, records, nil
}

// batchBuilder collects the messages from next to end-1.
type batchBuilder struct {
	batch     store.Batch
	next, end uint64
	left      int // bytes
}

func (b *batchBuilder) full() bool {
	return b.next >= b.end || (b.left <= 0 && len(b.batch.Messages) > 0)
}

// take adds messages as parts of payload, which begins with message next.
func (b *batchBuilder) take(payload []byte) {
	d := decoder{b: payload}
	for len(d.b) > 0 && b.next < b.end {
		m := d.bytes()
		if len(m) > b.left && len(b.batch.Messages) > 0 {
			b.left = 0
			return
		}
		b.left -= len(m)
		b.batch.Messages = append(b.batch.Messages, m)
		b.next++
	}
}

// takeRecent fills b from the cache, and reports whether message next is there.
func (b *batchBuilder) takeRecent(s *stream) bool {
	if len(s.recent) == 0 || s.recent[0].first > b.next {
		return false
	}
	for i := s.searchRecent(b.next); i < len(s.recent) && !b.full(); i++ {
		sec := s.recent[i]
		b.take(slicePayload(sec.payload, b.next-sec.first, sec.last()-b.next+1))
	}
	return true
}
