package outbox

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"

	"github.com/hashicorp/raft-wal/segment"
	"github.com/hashicorp/raft-wal/types"

	"github.com/buffstreams/watermill-buffstreams/store"
)

// engineFrame is what the engine adds to an entry at most: its header and
// padding in front and behind, and the frames of an index and a commit.
const engineFrame = 64

// checkCut looks behind the end that the engine found. A torn write leaves
// remains of one entry there, the next; any later one proves that the next was
// fsynced before and is damaged now.
func (o *Outbox) checkCut(f *segmentFile, fs types.VFS) error {
	r, err := fs.OpenReader(o.cfg.Dir, f.name)
	if err != nil {
		return err
	}
	found, _, _, err := o.findEntry(r, f.last+2)
	if err := errors.Join(err, r.Close()); err != nil {
		return err
	}
	if found != 0 {
		return &store.CorruptError{File: f.name, Index: f.last + 1,
			Reason: "intact entries lie behind a damaged one"}
	}
	return nil
}

// settleTail makes the last entry of the tail durable. Its writer may have died
// before the fsync, or have seen that fail: then the system shows bytes that
// it does not have on disk, and may never write unless they are written again.
// All earlier entries were fsynced before it was written.
func (o *Outbox) settleTail(f *segmentFile, fs types.VFS) (err error) {
	if f.last < f.info.BaseIndex {
		return nil
	}
	w, err := fs.OpenWriter(o.cfg.Dir, f.name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	found, offset, size, err := o.findEntry(w, f.last)
	if err != nil {
		return err
	}
	if found != f.last {
		return &store.CorruptError{File: f.name, Index: f.last, Reason: "entry"}
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

// findEntry searches a segment for the first entry with index from or above.
// The index that it returns is 0 if there is none.
func (o *Outbox) findEntry(r io.ReaderAt, from uint64) (index uint64, offset, size int64, err error) {
	magic := binary.BigEndian.AppendUint32(nil, entryMagic)
	window := make([]byte, 64<<10)
	for begin := int64(0); ; {
		n, end := r.ReadAt(window, begin)
		if end != nil && !errors.Is(end, io.EOF) {
			return 0, 0, 0, end
		}
		for at := 0; ; at += len(magic) {
			i := bytes.Index(window[at:n], magic)
			if i < 0 {
				break
			}
			at += i
			offset := begin + int64(at)
			index, size, err := o.entryAt(r, offset)
			if err != nil || index >= from {
				return index, offset, size, err
			}
		}
		if end != nil {
			return 0, 0, 0, nil
		}
		begin += int64(n - len(magic) + 1)
	}
}

// entryAt returns index and length of the intact entry at offset; the index is
// 0 if there is none.
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
	// Grows with what the file has, not with what the header says.
	entry, err := io.ReadAll(io.NewSectionReader(r, offset, size))
	if err != nil {
		return 0, 0, err
	}
	index, _, err = openEntry(entry, o.seed)
	if err != nil {
		return 0, 0, nil
	}
	return index, size, nil
}
