package outbox

import (
	"time"

	"github.com/hashicorp/raft-wal/segment"
	"github.com/hashicorp/raft-wal/types"
)

// codecEntries marks segments that hold the entries of an outbox.
const codecEntries = 1<<16 + 0x6f62

// segmentLog uses the engine to append entries to one tail segment, starts a new tail when the engine has sealed the
// old one, and removes segments in any order. Only Open uses it, and then the committer.
//
// A tail that a crash left is read but never appended to: the engine cannot append behind an index block that it wrote
// without the seal being committed, and remains of a torn write could be taken for entries later.
type segmentLog struct {
	filer        *segment.Filer
	dir          string
	fs           types.VFS
	meta         types.MetaStore
	segmentBytes int

	state  types.PersistentState // the manifest, as committed
	writer types.SegmentWriter   // of the tail
	tail   *segmentFile
}

// next returns the index of the entry that append will write.
func (l *segmentLog) next() uint64 { return l.tail.last + 1 }

// append writes and fsyncs one entry. full reports that the tail takes no more.
func (l *segmentLog) append(entry []byte) (full bool, err error) {
	err = l.writer.Append([]types.LogEntry{{Index: l.next(), Data: entry}})
	if err != nil {
		return false, err
	}
	full, start, err := l.writer.Sealed()
	l.tail.info.IndexStart = start
	return full, err
}

// start commits a manifest with a new tail, and creates its file. sealed, which may be nil, replaces what the manifest
// says of that segment.
func (l *segmentLog) start(base uint64, sealed *types.SegmentInfo) error {
	info := types.SegmentInfo{
		ID: l.state.NextSegmentID, BaseIndex: base, MinIndex: base,
		Codec: codecEntries, CreateTime: time.Now(), SizeLimit: uint32(l.segmentBytes),
	}
	next := types.PersistentState{NextSegmentID: info.ID + 1}
	for _, s := range l.state.Segments {
		if sealed != nil && s.ID == sealed.ID {
			s = *sealed
		}
		next.Segments = append(next.Segments, s)
	}
	next.Segments = append(next.Segments, info)
	if err := l.commit(next); err != nil {
		return err
	}
	w, err := l.create(info)
	if err != nil {
		return err
	}
	l.writer = w
	l.tail = newSegmentFile(info, base-1)
	l.tail.handle.r = w
	l.tail.handle.open = func() (types.SegmentReader, error) { return w, nil }
	return nil
}

// rotate seals the full tail in the manifest and starts the next segment.
func (l *segmentLog) rotate() error {
	full, info := l.tail, l.tail.info
	info.SealTime, info.MaxIndex = time.Now(), full.last
	if err := l.start(full.last+1, &info); err != nil {
		return err
	}
	full.info = info
	// The writer keeps its buffer, and an offset for each entry, so a reader takes its place.
	return full.handle.reset(l.opener(info))
}

// opener returns a function that opens a segment which is not appended to any more.
func (l *segmentLog) opener(info types.SegmentInfo) func() (types.SegmentReader, error) {
	if !info.SealTime.IsZero() {
		return func() (types.SegmentReader, error) { return l.openSealed(info) }
	}
	return func() (types.SegmentReader, error) {
		w, err := l.recoverTail(info)
		if err != nil {
			return nil, err // not w: a nil writer would be a reader that is not nil
		}
		return w, nil
	}
}

// remove removes segments from the manifest. discard must follow for each.
func (l *segmentLog) remove(files []*segmentFile) error {
	removed := map[uint64]bool{}
	for _, f := range files {
		removed[f.info.ID] = true
	}
	next := types.PersistentState{NextSegmentID: l.state.NextSegmentID}
	for _, s := range l.state.Segments {
		if !removed[s.ID] {
			next.Segments = append(next.Segments, s)
		}
	}
	return l.commit(next)
}

func (l *segmentLog) commit(next types.PersistentState) error {
	if err := l.meta.CommitState(next); err != nil {
		return err
	}
	l.state = next
	return nil
}

// discard closes a segment that was removed from the manifest, and deletes its file. If that fails, the next Open
// deletes the file.
func (l *segmentLog) discard(f *segmentFile) {
	_ = f.handle.reset(nil)
	_ = l.filer.Delete(f.info.BaseIndex, f.info.ID)
}
