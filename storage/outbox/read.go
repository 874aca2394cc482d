package outbox

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/hashicorp/raft-wal/types"

	"github.com/buffstreams/watermill-buffstreams/store"
)

// Read returns messages of stream k from sequence from on, as many as maxBytes
// hold but at least one. Messages that are settled are skipped, so First can
// be larger than from; a batch never has a gap inside. Only durable messages are
// returned; if there is none, the batch is empty and First is the sequence to
// give to Ready. Reading on from Next is cheap, jumping costs a search of at
// most one segment. One goroutine at a time may read a stream.
//
// A *CorruptError says which messages cannot be read; nothing is skipped.
func (o *Outbox) Read(k store.Key, from uint64, maxBytes int) (store.Batch, error) {
	for {
		o.mu.Lock()
		s, err := o.lookup(k)
		if err != nil {
			o.mu.Unlock()
			return store.Batch{}, err
		}
		from = s.settled.next(from)
		end := s.settled.limit(from, s.durable)
		b := batchBuilder{next: from, end: end, left: maxBytes, batch: store.Batch{First: from}}
		if from >= end || b.fromCache(s) {
			o.mu.Unlock()
			return b.batch, nil
		}
		p, err := s.plan(from)
		o.mu.Unlock()
		if err == nil {
			err = o.readExtent(&p, &b)
		}
		if errors.Is(err, errGone) {
			continue // moved meanwhile: the index knows where to
		}
		if len(b.batch.Messages) == 0 && err != nil {
			return store.Batch{}, err
		}
		// Damage behind a good message is for the next Read to report.
		o.mu.Lock()
		s.hint = hint{seq: b.next, index: p.at, extent: p.extent}
		o.mu.Unlock()
		return b.batch, nil
	}
}

// plan is where to read: entries at to hi of the extent's segment.
type plan struct {
	key     store.Key
	stream  uint64
	extent  *extent
	segment *segmentFile
	from    origin
	at, hi  uint64
	last    uint64 // last sequence of the extent
}

// plan finds the extent that holds seq. mu is held.
func (s *stream) plan(seq uint64) (plan, error) {
	x := s.extentAt(seq)
	if x == nil {
		return plan{}, s.lost(seq)
	}
	p := plan{key: s.key, stream: s.id, extent: x, segment: x.segment, from: x.from, at: x.lo, hi: x.hi, last: x.last}
	if s.hint.extent == x && s.hint.seq <= seq && s.hint.index >= x.lo {
		p.at = s.hint.index
	}
	return p, nil
}

// lost reports pending messages that no segment holds. mu is held.
func (s *stream) lost(seq uint64) *store.CorruptError {
	through := s.settled.limit(seq, s.durable) - 1
	for _, x := range s.extents {
		if x.first > seq {
			through = min(through, x.first-1)
			break
		}
	}
	return &store.CorruptError{Reason: "messages are missing from the log", Key: s.key, From: seq, Through: through}
}

// readExtent fills b from the entries of p. If an entry is damaged it looks on
// to learn how much is lost.
func (o *Outbox) readExtent(p *plan, b *batchBuilder) error {
	var damage *store.CorruptError
	for ; p.at <= p.hi; p.at++ {
		first, err := o.readRecords(p, b)
		if errors.Is(err, errGone) {
			return err
		}
		if err != nil && !isDamage(err) {
			return fmt.Errorf("outbox: %w", err)
		}
		if err != nil && damage == nil {
			damage = &store.CorruptError{File: p.segment.name, Index: p.at, Reason: "entry", Err: err, Key: p.key, From: b.next}
		}
		if first != 0 {
			if damage == nil {
				damage = &store.CorruptError{File: p.segment.name, Index: p.at, Reason: "messages are missing before", Key: p.key, From: b.next}
			}
			damage.Through = first - 1
			return damage
		}
		if b.full() {
			return nil
		}
	}
	p.at = p.hi // what is appended later may follow in this extent
	if b.next < b.end && b.next <= p.last {
		if damage == nil {
			damage = &store.CorruptError{File: p.segment.name, Index: p.hi, Reason: "messages are missing up to", Key: p.key, From: b.next}
		}
		damage.Through = min(p.last, b.end-1)
		return damage
	}
	return nil
}

// isDamage tells an entry that is not what was written from one that cannot be
// read now.
func isDamage(err error) bool {
	for _, d := range []error{errShortEntry, errEntryMagic, errEntryCRC, errEntryIndex, errRecord,
		types.ErrCorrupt, types.ErrNotFound, io.EOF, io.ErrUnexpectedEOF, os.ErrNotExist} {
		if errors.Is(err, d) {
			return true
		}
	}
	return false
}

// readRecords takes what b wants out of one entry. A first other than 0 means
// that the entry goes on at first although b.next should come.
func (o *Outbox) readRecords(p *plan, b *batchBuilder) (first uint64, err error) {
	buf, records, err := o.readEntry(p.segment, p.at)
	if err != nil {
		return 0, err
	}
	defer buf.Close()
	d := decoder{b: records}
	for len(d.b) > 0 && !b.full() {
		r := d.record()
		if d.bad {
			return 0, errRecord
		}
		if r.kind != recordMessages || r.stream != p.stream || r.from != p.from || r.last() < b.next {
			continue
		}
		if r.first > b.next {
			return r.first, nil
		}
		// The buffer is the engine's: what is kept of it is copied, in one piece.
		b.take(append([]byte(nil), slicePayload(r.payload, b.next-r.first, r.last()-b.next+1)...))
	}
	return 0, nil
}

// batchBuilder collects the messages next to end-1.
type batchBuilder struct {
	batch     store.Batch
	next, end uint64
	left      int // bytes
}

func (b *batchBuilder) full() bool {
	return b.next >= b.end || (b.left <= 0 && len(b.batch.Messages) > 0)
}

// take adds messages as views of payload, which begins with message next.
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

// fromCache fills b from memory, if what it wants first is there. mu is held.
func (b *batchBuilder) fromCache(s *stream) bool {
	if len(s.recent) == 0 || s.recent[0].first > b.next {
		return false
	}
	for i := s.recentAt(b.next); i < len(s.recent) && !b.full(); i++ {
		sec := s.recent[i]
		b.take(slicePayload(sec.payload, b.next-sec.first, sec.last()-b.next+1))
	}
	return true
}
