package outbox

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"

	"github.com/hashicorp/raft-wal/segment"

	"github.com/buffstreams/watermill-buffstreams/store"
)

// engineFrame bounds what the engine adds to an entry: its header and padding in front and behind, and the frames of an
// index and a commit.
const engineFrame = 64

// checkTail looks behind the end that the engine found in the tail. An entry is written after the fsync of the one
// before, so a torn write leaves remains of one entry only. If a later one is intact, the entry at the end was fsynced
// and is damaged.
func (o *Outbox) checkTail(f *segmentFile) error {
	r, err := o.log.fs.OpenReader(o.cfg.Dir, f.name)
	if err != nil {
		return err
	}
	found, _, _, err := o.findEntry(r, f.last+2)
	if err := errors.Join(err, r.Close()); err != nil {
		return err
	}
	if found != 0 {
		return &store.CorruptError{File: f.name, Index: f.last + 1, Reason: "damaged entry before intact ones"}
	}
	return nil
}

// rewriteLast makes the last entry of the tail durable. The process that wrote it may have died before the fsync, or
// may have seen the fsync fail. Then the system shows bytes that the disk does not have, and may never write them
// unless they are written again. All earlier entries were fsynced before.
func (o *Outbox) rewriteLast(f *segmentFile) (err error) {
	if f.last < f.info.BaseIndex {
		return nil
	}
	w, err := o.log.fs.OpenWriter(o.cfg.Dir, f.name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	found, offset, size, err := o.findEntry(w, f.last)
	if err != nil {
		return err
	}
	if found != f.last {
		return &store.CorruptError{File: f.name, Index: f.last, Reason: "unreadable entry"}
	}
	start := max(offset-engineFrame, 0)
	if f.last == f.info.BaseIndex {
		start = 0 // the file's header goes with its first entry
	}
	entries := int64(f.last - f.info.BaseIndex + 1)
	region, err := io.ReadAll(io.NewSectionReader(w, start, offset-start+size+4*entries+engineFrame))
	if err != nil {
		return err
	}
	if _, err := w.WriteAt(region, start); err != nil {
		return err
	}
	return w.Sync()
}

// findEntry searches a segment for the first intact entry with index from or above. It returns index 0 if there is
// none.
func (o *Outbox) findEntry(r io.ReaderAt, from uint64) (index uint64, offset, size int64, err error) {
	magic := binary.BigEndian.AppendUint32(nil, entryMagic)
	window := make([]byte, 64<<10)
	for start := int64(0); ; {
		n, err := r.ReadAt(window, start)
		eof := errors.Is(err, io.EOF)
		if err != nil && !eof {
			return 0, 0, 0, err
		}
		for at := 0; ; at += len(magic) {
			i := bytes.Index(window[at:n], magic)
			if i < 0 {
				break
			}
			at += i
			offset := start + int64(at)
			index, size, err := o.entryAt(r, offset)
			if err != nil || index >= from {
				return index, offset, size, err
			}
		}
		if eof {
			return 0, 0, 0, nil
		}
		start += int64(n - len(magic) + 1)
	}
}

// entryAt returns index and size of the intact entry at offset. The index is 0 if there is none.
func (o *Outbox) entryAt(r io.ReaderAt, offset int64) (index uint64, size int64, err error) {
	header := make([]byte, entryHeader)
	if _, err := r.ReadAt(header, offset); err != nil {
		if errors.Is(err, io.EOF) {
			err = nil
		}
		return 0, 0, err
	}
	size = int64(entryHeader) + int64(binary.BigEndian.Uint32(header[16:]))
	if size > segment.MaxEntrySize {
		return 0, 0, nil
	}
	// ReadAll takes memory for what the file has, not for what the header says.
	entry, err := io.ReadAll(io.NewSectionReader(r, offset, size))
	if err != nil {
		return 0, 0, err
	}
	index, _, err = openEntry(entry, o.seed)
	if err != nil {
		return 0, 0, nil //nolint:nilerr // what is not intact is no entry
	}
	return index, size, nil
}
