package outbox

import (
	"errors"

	"github.com/buffstreams/watermill-buffstreams/store"
)

// replayTail reads the segment that was the tail of an earlier process. The table of streams knows its entries up to
// saved already.
func (o *Outbox) replayTail(f *segmentFile, saved uint64) error {
	if !f.info.SealTime.IsZero() {
		return &store.CorruptError{File: f.name, Reason: "the manifest has no open segment"}
	}
	w, err := o.log.recoverTail(f.info)
	if err != nil {
		return asCorrupt(err, f.name, "segment")
	}
	f.handle.r = w
	o.index.segments[f.info.ID] = f // so that closeFiles closes it, whatever follows
	f.last = max(w.LastIndex(), f.info.BaseIndex-1)
	if err := o.checkTail(f); err != nil {
		return err
	}
	if f.last > saved {
		if err := o.rewriteLast(f); err != nil {
			return asCorrupt(err, f.name, "segment")
		}
	}
	known := map[extentKey]*extent{}
	for entry := f.info.BaseIndex; entry <= f.last; entry++ {
		buf, records, err := o.readEntry(f, entry)
		if err == nil {
			err = errors.Join(o.index.replay(f, known, entry, records, entry > saved), buf.Close())
		}
		if err != nil {
			return &store.CorruptError{File: f.name, Index: entry, Reason: "unreadable entry", Err: err}
		}
	}
	return nil
}

// replay applies the records of one entry. fresh says that the table of streams does not know them yet; otherwise
// replay only notes where messages lie. known holds the extents that f had so far.
func (ix *index) replay(f *segmentFile, known map[extentKey]*extent, entry uint64, records []byte, fresh bool) error {
	d := decoder{b: records}
	for len(d.b) > 0 {
		r := d.record()
		if d.bad {
			return errRecord
		}
		if fresh {
			if err := ix.apply(&r); err != nil {
				return err
			}
		}
		// The stream may have been forgotten since.
		if s := ix.byID[r.stream]; s != nil && r.kind == recordMessages {
			f.extend(known, s, entry, r.run())
		}
	}
	return nil
}

// apply changes the streams as r says.
func (ix *index) apply(r *record) error {
	s := ix.byID[r.stream]
	switch r.kind {
	case recordStream:
		if s != nil || ix.streams[r.key] != nil {
			return errRecord
		}
		ix.addStream(r.stream, r.key).defined = true
	case recordMessages:
		if r.origin != (origin{}) {
			return nil // copies change nothing
		}
		if s == nil || r.first != s.durable {
			return errRecord
		}
		s.durable = r.last() + 1
		s.next = s.durable
	case recordSettled:
		if s != nil {
			s.settled.add(store.Range{First: 1, Last: min(r.through, s.durable-1)}, nil)
		}
	case recordForget:
		if s != nil {
			ix.removeStream(s)
		}
	}
	return nil
}
