package outbox

import (
	"errors"
	"sync"
	"time"

	"github.com/hashicorp/raft-wal/segment"
	"github.com/hashicorp/raft-wal/types"
)

// codecEntries marks segments whose entries are ours.
const codecEntries = 1<<16 + 0x6f62

// errGone tells a reader that its segment was given back: whatever was still
// wanted of it lies elsewhere now.
var errGone = errors.New("outbox: segment removed")

// segmentFile is one file of the log. Its index fields belong to the Outbox
// (see index.go); the handle below synchronizes itself.
type segmentFile struct {
	info types.SegmentInfo // the committer's
	last uint64            // last entry, base-1 if none; the committer's
	name string

	extents   []*extent // in order of first write, moved ones whose origin still counts included
	live      int       // extents with pending messages
	bytes     int64     // cost of what is pending
	unmovable bool      // damaged: relocation gave up on it

	handle handle
}

func newSegmentFile(info types.SegmentInfo, last uint64) *segmentFile {
	return &segmentFile{info: info, last: last, name: segment.FileName(info)}
}

// handle gives many readers access to a segment and lets its owner replace or
// remove it under them.
type handle struct {
	mu   sync.RWMutex
	open func() (types.SegmentReader, error) // nil: gone
	r    types.SegmentReader                 // nil until needed
}

// read returns an entry's bytes. The caller closes the buffer.
func (h *handle) read(index uint64) (*types.PooledBuffer, error) {
	for {
		h.mu.RLock()
		if h.r != nil {
			defer h.mu.RUnlock()
			return h.r.GetLog(index)
		}
		h.mu.RUnlock()
		if err := h.ensureOpen(); err != nil {
			return nil, err
		}
	}
}

func (h *handle) ensureOpen() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.open == nil {
		return errGone
	}
	if h.r != nil {
		return nil
	}
	r, err := h.open()
	if err == nil {
		h.r = r
	}
	return err
}

// reset waits for the reads under way, closes what is open, and opens with open
// next time; nil ends the handle.
func (h *handle) reset(open func() (types.SegmentReader, error)) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	r := h.r
	h.r, h.open = nil, open
	if r == nil {
		return nil
	}
	return r.Close()
}

// segmentLog drives the engine: it appends to one tail, starts a new segment
// when the engine has sealed it, and gives back segments in any order. Only the
// committer calls it after Open.
//
// The tail that a crash left is read but never appended to: the engine cannot
// go on behind an index block that it wrote but whose seal was not committed,
// and remains of a torn write could be taken for entries later.
type segmentLog struct {
	filer        *segment.Filer
	dir          string
	fs           types.VFS
	meta         types.MetaStore
	segmentBytes int

	state  types.PersistentState // as committed
	writer types.SegmentWriter
	tail   *segmentFile
}

func (l *segmentLog) next() uint64 { return l.tail.last + 1 }

// append writes and fsyncs one entry. full tells that the tail takes no more.
func (l *segmentLog) append(entry []byte) (full bool, err error) {
	err = l.writer.Append([]types.LogEntry{{Index: l.next(), Data: entry}})
	if err != nil {
		return false, err
	}
	full, start, err := l.writer.Sealed()
	l.tail.info.IndexStart = start
	return full, err
}

// start commits a manifest whose last segment is a new one and makes its file.
// sealed, which may be nil, replaces what the manifest says of that segment.
func (l *segmentLog) start(base uint64, sealed *types.SegmentInfo) (*segmentFile, error) {
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
		return nil, err
	}
	w, err := l.create(info)
	if err != nil {
		return nil, err
	}
	l.writer = w
	l.tail = newSegmentFile(info, base-1)
	l.tail.handle.r = w
	l.tail.handle.open = func() (types.SegmentReader, error) { return w, nil }
	return l.tail, nil
}

// rotate seals the full tail in the manifest and starts the next segment.
func (l *segmentLog) rotate() error {
	old, info := l.tail, l.tail.info
	info.SealTime, info.MaxIndex = time.Now(), old.last
	if _, err := l.start(old.last+1, &info); err != nil {
		return err
	}
	old.info = info
	// The writer keeps its buffer and an offset per entry: drop it.
	return old.handle.reset(l.opener(info))
}

// opener returns how to read a segment that takes no more entries.
func (l *segmentLog) opener(info types.SegmentInfo) func() (types.SegmentReader, error) {
	if info.SealTime.IsZero() {
		return func() (types.SegmentReader, error) {
			w, err := l.recoverTail(info)
			if err != nil {
				return nil, err
			}
			return w, nil
		}
	}
	return func() (types.SegmentReader, error) { return l.openSealed(info) }
}

// forget takes segments out of the manifest; their files follow with discard.
func (l *segmentLog) forget(gone map[uint64]bool) error {
	next := types.PersistentState{NextSegmentID: l.state.NextSegmentID}
	for _, s := range l.state.Segments {
		if !gone[s.ID] {
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

// discard ends the readers of a forgotten segment and deletes its file. A file
// that cannot be deleted now is deleted by the next Open.
func (l *segmentLog) discard(f *segmentFile) {
	_ = f.handle.reset(nil)
	_ = l.filer.Delete(f.info.BaseIndex, f.info.ID)
}
