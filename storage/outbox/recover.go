package outbox

import (
	"errors"
	"os"

	"github.com/hashicorp/raft-wal/segment"
	"github.com/hashicorp/raft-wal/types"

	"github.com/buffstreams/watermill-buffstreams/store"
)

// recover builds the index from what an earlier process left, starts a fresh
// segment and the next epoch. Only the last segment is read: the summaries of
// the others say what they hold.
func (o *Outbox) recover(fs types.VFS) error {
	l := &segmentLog{filer: segment.NewFiler(o.cfg.Dir, fs), dir: o.cfg.Dir, fs: fs, meta: o.meta, segmentBytes: o.cfg.SegmentBytes}
	o.log = l
	var err error
	if l.state, err = o.meta.Load(o.cfg.Dir); err != nil {
		return damaged(err, "", "manifest")
	}
	l.state.NextSegmentID = max(l.state.NextSegmentID, 1) // origin{} means none
	files, err := l.filer.List()
	if err != nil {
		return damaged(err, "", "list of segments")
	}
	for id, base := range files {
		if id >= l.state.NextSegmentID {
			// The manifest is committed before a segment is made: it has rotted and an older one took its place.
			return &store.CorruptError{File: segment.FileName(types.SegmentInfo{ID: id, BaseIndex: base}), Reason: "the manifest is older than the log"}
		}
	}
	if err := o.loadIdentity(len(l.state.Segments) > 0); err != nil {
		return err
	}
	saved, err := o.loadStreams(len(l.state.Segments) > 0)
	if err != nil {
		return err
	}
	last, err := o.loadSegments(fs, files, saved)
	if err != nil {
		return err
	}
	if last < saved {
		return &store.CorruptError{Index: last + 1, Reason: "the log ends before what was saved of it"}
	}
	stripped := o.attachAll()
	if err := o.begin(last, stripped); err != nil {
		return err
	}
	for id, base := range files {
		if o.segments[id] == nil {
			_ = l.filer.Delete(base, id) // a crash came between manifest and deletion
		}
	}
	return nil
}

func (o *Outbox) loadIdentity(expected bool) error {
	b, err := o.meta.get(keyIdentity)
	if err != nil {
		return err
	}
	if b == nil {
		if expected {
			return &store.CorruptError{Reason: "identity is missing"}
		}
		o.who = newIdentity()
	} else {
		var ok bool
		if o.who, ok = decodeIdentity(b); !ok {
			return &store.CorruptError{Reason: "identity"}
		}
	}
	o.seed = seedOf(o.who.id)
	return nil
}

func (o *Outbox) loadStreams(expected bool) (saved uint64, err error) {
	b, err := o.meta.get(keyStreams)
	if err == nil && b == nil && expected {
		err = &store.CorruptError{Reason: "table of streams is missing"}
	}
	if err != nil || b == nil {
		return 0, err
	}
	saved, ok := o.decodeStreams(b)
	if !ok {
		return 0, &store.CorruptError{Reason: "table of streams"}
	}
	return saved, nil
}

// loadSegments finds out what every segment holds and returns the last entry of
// the log.
func (o *Outbox) loadSegments(fs types.VFS, files map[uint64]uint64, saved uint64) (last uint64, err error) {
	segments := o.log.state.Segments
	for i, info := range segments {
		f := newSegmentFile(info, info.BaseIndex-1)
		f.handle.open = o.log.opener(info)
		_, exists := files[info.ID]
		tail := i == len(segments)-1
		switch {
		case tail && !exists && saved < info.BaseIndex:
			// The crash came before its first fsync.
		case !exists:
			return 0, &store.CorruptError{File: f.name, Reason: "segment is missing"}
		case tail:
			err = o.replay(f, fs, saved)
		default:
			err = o.loadSummary(f)
		}
		if err != nil {
			return 0, err
		}
		last = f.last
		o.segments[info.ID] = f
	}
	return last, nil
}

func (o *Outbox) loadSummary(f *segmentFile) error {
	b, err := o.meta.get(keySummary(f.info.ID))
	if err != nil {
		return err
	}
	if !o.decodeSummary(f, b) {
		return &store.CorruptError{File: f.name, Reason: "summary of the segment"}
	}
	return nil
}

// replay reads the last segment. Its entries up to saved are in the table of
// streams already.
func (o *Outbox) replay(f *segmentFile, fs types.VFS, saved uint64) error {
	if !f.info.SealTime.IsZero() {
		return &store.CorruptError{File: f.name, Reason: "the manifest has no open segment"}
	}
	w, err := o.log.recoverTail(f.info)
	if err != nil {
		return damaged(err, f.name, "segment")
	}
	f.handle.r = w
	o.segments[f.info.ID] = f // so that it is closed if this fails
	f.last = max(w.LastIndex(), f.info.BaseIndex-1)
	if err := o.checkCut(f, fs); err != nil {
		return err
	}
	if f.last > saved {
		if err := o.settleTail(f, fs); err != nil {
			return damaged(err, f.name, "segment")
		}
	}
	grown := map[extentKey]*extent{}
	for index := f.info.BaseIndex; index <= f.last; index++ {
		buf, err := w.GetLog(index)
		if err != nil {
			return &store.CorruptError{File: f.name, Index: index, Reason: "entry", Err: err}
		}
		records, err := openEntryAt(buf.Bs, index, o.seed)
		if err == nil {
			err = o.replayRecords(f, grown, index, records, index > saved)
		}
		if err := errors.Join(err, buf.Close()); err != nil {
			return &store.CorruptError{File: f.name, Index: index, Reason: "entry", Err: err}
		}
	}
	return nil
}

// replayRecords applies one entry. fresh says that the table of streams does
// not know it yet; else only where messages lie is of interest.
func (o *Outbox) replayRecords(f *segmentFile, grown map[extentKey]*extent, index uint64, records []byte, fresh bool) error {
	d := decoder{b: records}
	for len(d.b) > 0 {
		r := d.record()
		if d.bad {
			return errRecord
		}
		s := o.byID[r.stream]
		switch {
		case r.kind == recordStream && fresh:
			if s != nil || o.streams[r.key] != nil {
				return errRecord
			}
			o.addStream(r.stream, r.key).defined = true
		case s == nil && r.kind == recordMessages && r.from == (origin{}) && fresh:
			return errRecord
		case s == nil:
			// Of a stream that was forgotten since.
		case r.kind == recordMessages:
			if r.from == (origin{}) && fresh {
				if r.first != s.durable {
					return errRecord
				}
				s.durable = r.last() + 1
				s.next = s.durable
			}
			f.extend(grown, s, index, r.run())
		case r.kind == recordSettled && fresh:
			s.settled.add(store.Range{First: 1, Last: min(r.through, s.durable-1)}, func(store.Range) {})
		case r.kind == recordForget && fresh:
			o.removeStream(s)
		}
	}
	return nil
}

// attachAll makes the extents count, except those moved from a segment that is
// still there: that relocation did not end. It returns the segments that had
// such.
func (o *Outbox) attachAll() (stripped []*segmentFile) {
	for _, f := range o.segments {
		n := 0
		for _, x := range f.extents {
			if _, unfinished := o.segments[x.from.segment]; unfinished || o.byID[x.stream.id] != x.stream {
				continue
			}
			f.extents[n] = x
			n++
			if x.stream.attach(x) {
				x.stream.addBytes(x.bytes)
			}
		}
		if n < len(f.extents) {
			f.extents = f.extents[:n]
			stripped = append(stripped, f)
		}
	}
	return stripped
}

// begin saves what was recovered, so that the next Open need not find it out
// again, and starts the epoch and its first segment.
func (o *Outbox) begin(last uint64, rewrite []*segmentFile) error {
	l := o.log
	if n := len(l.state.Segments); n > 0 {
		tail := o.segments[l.state.Segments[n-1].ID]
		if tail.last < tail.info.BaseIndex {
			_ = tail.handle.reset(nil)
			delete(o.segments, tail.info.ID)
			l.state.Segments = l.state.Segments[:n-1]
		} else {
			rewrite = append(rewrite, tail)
		}
	}
	for _, f := range rewrite {
		if err := o.meta.set(keySummary(f.info.ID), o.encodeSummary(f)); err != nil {
			return err
		}
	}
	o.who.epoch++
	if err := o.meta.set(keyIdentity, o.who.encode()); err != nil {
		return err
	}
	if err := o.meta.set(keyStreams, o.encodeStreams(last)); err != nil {
		return err
	}
	tail, err := l.start(last+1, nil)
	if err != nil {
		return err
	}
	o.segments[tail.info.ID] = tail
	return nil
}

// damaged makes a CorruptError of what is not the file system refusing.
func damaged(err error, file, what string) error {
	var known *store.CorruptError
	if errors.As(err, &known) || errors.Is(err, os.ErrPermission) {
		return err
	}
	if errors.Is(err, types.ErrCorrupt) || errors.Is(err, os.ErrNotExist) {
		return &store.CorruptError{File: file, Reason: what, Err: err}
	}
	return err
}
