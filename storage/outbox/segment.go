package outbox

import (
	"errors"
	"sync"

	"github.com/hashicorp/raft-wal/segment"
	"github.com/hashicorp/raft-wal/types"
)

// errSegmentRemoved tells a reader that its segment is gone: its pending messages are in another one now.
var errSegmentRemoved = errors.New("outbox: segment removed")

// segmentFile is one file of the log.
type segmentFile struct {
	name   string
	info   types.SegmentInfo // owned by the committer
	last   uint64            // last entry, info.BaseIndex-1 if there is none; owned by the committer
	handle handle

	// Part of the index, so Outbox.mu guards them.
	extents        []*extent // in the order of their first records; copies whose original is still there included
	pendingExtents int       // extents with pending messages
	pendingBytes   int64     // cost of these messages
	unmovable      bool      // damaged, so that it cannot be relocated
}

func newSegmentFile(info types.SegmentInfo, last uint64) *segmentFile {
	return &segmentFile{info: info, last: last, name: segment.FileName(info)}
}

// handle gives concurrent readers access to a segment, and lets the committer replace or remove the segment meanwhile.
type handle struct {
	mu   sync.RWMutex                        // guards the fields below; read with it held for reading
	open func() (types.SegmentReader, error) // nil after the segment was removed
	r    types.SegmentReader                 // nil until it is needed
}

// read returns the bytes of an entry. The caller must close the buffer.
func (h *handle) read(entry uint64) (*types.PooledBuffer, error) {
	for {
		buf, opened, err := h.tryRead(entry)
		if opened {
			return buf, err
		}
		if err := h.ensureOpen(); err != nil {
			return nil, err
		}
	}
}

func (h *handle) tryRead(entry uint64) (buf *types.PooledBuffer, opened bool, err error) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	if h.r == nil {
		return nil, false, nil
	}
	buf, err = h.r.GetLog(entry)
	return buf, true, err
}

func (h *handle) ensureOpen() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.open == nil {
		return errSegmentRemoved
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

// reset waits for the reads under way, closes the segment, and uses open from now on to open it when it is read. With
// nil it cannot be read any more.
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
