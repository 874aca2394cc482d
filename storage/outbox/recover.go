package outbox

import (
	"errors"
	"os"

	"github.com/hashicorp/raft-wal/segment"
	"github.com/hashicorp/raft-wal/types"

	"github.com/buffstreams/watermill-buffstreams/store"
)

// recoverLog builds the index from what an earlier process left, and starts the next epoch with a new segment. It reads
// only the last segment, because a summary says what each of the others holds.
func (o *Outbox) recoverLog(fs types.VFS) error {
	l := &segmentLog{filer: segment.NewFiler(o.cfg.Dir, fs), dir: o.cfg.Dir, fs: fs, meta: o.meta, segmentBytes: o.cfg.SegmentBytes}
	o.log = l
	files, err := l.load()
	if err != nil {
		return err
	}
	existed := len(l.state.Segments) > 0
	if err := o.loadIdentity(existed); err != nil {
		return err
	}
	if err := o.loadLineage(); err != nil {
		return err
	}
	if err := o.loadPlaces(); err != nil {
		return err
	}
	saved, err := o.loadStreams(existed)
	if err != nil {
		return err
	}
	last, err := o.loadSegments(files, saved)
	if err != nil {
		return err
	}
	if last < saved {
		return &store.CorruptError{Index: last + 1, Reason: "the log ends before what was saved of it"}
	}
	if err := o.startEpoch(last, o.index.attachAll()); err != nil {
		return err
	}
	for _, s := range o.index.byID {
		s.handed = s.next
	}
	for id, base := range files {
		if o.index.segments[id] == nil {
			_ = l.filer.Delete(base, id) // a crash came after the manifest, and before the deletion
		}
	}
	return nil
}

// load loads the manifest, and returns the segment files that there are: their first entries by their ids.
func (l *segmentLog) load() (files map[uint64]uint64, err error) {
	if l.state, err = l.meta.Load(l.dir); err != nil {
		return nil, asCorrupt(err, "", "manifest")
	}
	l.state.NextSegmentID = max(l.state.NextSegmentID, 1) // 0 in an origin means none
	files, err = l.filer.List()
	if err != nil {
		return nil, asCorrupt(err, "", "list of segments")
	}
	for id, base := range files {
		if id >= l.state.NextSegmentID {
			// The manifest is committed before a segment is created, so the newest manifest rotted.
			name := segment.FileName(types.SegmentInfo{ID: id, BaseIndex: base})
			return nil, &store.CorruptError{File: name, Reason: "the manifest is older than the log"}
		}
	}
	return files, nil
}

func (o *Outbox) loadIdentity(existed bool) error {
	b, err := o.meta.get(keyIdentity)
	switch {
	case err != nil:
		return err
	case b == nil && existed:
		return &store.CorruptError{Reason: "identity is missing"}
	case b == nil:
		o.identity, o.drawn = newIdentity(), true
	default:
		var ok bool
		if o.identity, ok = decodeIdentity(b); !ok {
			return &store.CorruptError{Reason: "identity"}
		}
	}
	o.seed = seedOf(o.identity.id)
	return nil
}

// loadStreams loads the table of streams, and returns the last entry that it knows.
func (o *Outbox) loadStreams(existed bool) (saved uint64, err error) {
	b, err := o.meta.get(keyStreams)
	if err == nil && b == nil && existed {
		err = &store.CorruptError{Reason: "table of streams is missing"}
	}
	if err != nil || b == nil {
		return 0, err
	}
	saved, ok := o.index.decodeStreams(b)
	if !ok {
		return 0, &store.CorruptError{Reason: "table of streams"}
	}
	return saved, nil
}

// loadSegments learns what each segment holds, and returns the last entry of the log.
func (o *Outbox) loadSegments(files map[uint64]uint64, saved uint64) (last uint64, err error) {
	segments := o.log.state.Segments
	for i, info := range segments {
		f := newSegmentFile(info, info.BaseIndex-1)
		f.handle.open = o.log.opener(info)
		_, exists := files[info.ID]
		tail := i == len(segments)-1
		switch {
		case tail && !exists && saved < info.BaseIndex:
			// A crash came before its first fsync.
		case !exists:
			return 0, &store.CorruptError{File: f.name, Reason: "segment is missing"}
		case tail:
			err = o.replayTail(f, saved)
		default:
			err = o.loadSummary(f)
		}
		if err != nil {
			return 0, err
		}
		last = f.last
		o.index.segments[info.ID] = f
	}
	return last, nil
}

func (o *Outbox) loadSummary(f *segmentFile) error {
	b, err := o.meta.get(keySummary(f.info.ID))
	if err != nil {
		return err
	}
	if !o.index.decodeSummary(f, b) {
		return &store.CorruptError{File: f.name, Reason: "summary of the segment"}
	}
	return nil
}

// startEpoch saves what was recovered, the summaries of the given segments included, and starts the next epoch with a
// new segment behind entry last.
func (o *Outbox) startEpoch(last uint64, changed []*segmentFile) error {
	l := o.log
	if n := len(l.state.Segments); n > 0 {
		tail := o.index.segments[l.state.Segments[n-1].ID]
		if tail.last < tail.info.BaseIndex {
			_ = tail.handle.reset(nil)
			delete(o.index.segments, tail.info.ID)
			l.state.Segments = l.state.Segments[:n-1]
		} else {
			changed = append(changed, tail)
		}
	}
	for _, f := range changed {
		if err := o.meta.set(keySummary(f.info.ID), o.index.encodeSummary(f)); err != nil {
			return err
		}
	}
	o.identity.epoch++
	o.lineage.begin(o.identity.epoch)
	if err := o.saveLineage(o.lineage); err != nil {
		return err
	}
	if err := o.meta.set(keyStreams, o.index.encodeStreams(last)); err != nil {
		return err
	}
	if err := o.noteOpenings(); err != nil {
		return err
	}
	if err := l.start(last+1, nil); err != nil {
		return err
	}
	o.index.segments[l.tail.info.ID] = l.tail
	return nil
}

// asCorrupt makes a CorruptError of an error that means damage, and returns others, such as a permission that is
// missing, as they are.
func asCorrupt(err error, file, reason string) error {
	var corrupt *store.CorruptError
	if errors.As(err, &corrupt) || errors.Is(err, os.ErrPermission) {
		return err
	}
	if errors.Is(err, types.ErrCorrupt) || errors.Is(err, os.ErrNotExist) {
		return &store.CorruptError{File: file, Reason: reason, Err: err}
	}
	return err
}
