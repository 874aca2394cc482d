package outbox

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"

	"github.com/hashicorp/raft-wal/segment"
	"github.com/hashicorp/raft-wal/types"
)

// checkCut looks behind the end that the engine found. A torn write leaves
// remains of one entry there, the next; any later one proves that the next was
// fsynced before and is damaged now.
func (o *Outbox) checkCut(f *segmentFile, fs types.VFS) error {
	r, err := fs.OpenReader(o.cfg.Dir, f.name)
	if err != nil {
		return err
	}
	found, err := o.laterEntry(r, f.last+2)
	if err := errors.Join(err, r.Close()); err != nil {
		return err
	}
	if found != 0 {
		return &CorruptError{File: f.name, Index: f.last + 1,
			Reason: "intact entries lie behind a damaged one"}
	}
	return nil
}

// laterEntry searches a segment for an entry with index from or above.
func (o *Outbox) laterEntry(r io.ReaderAt, from uint64) (uint64, error) {
	magic := binary.BigEndian.AppendUint32(nil, entryMagic)
	window := make([]byte, 256<<10)
	for offset := int64(0); ; {
		n, err := r.ReadAt(window, offset)
		if err != nil && !errors.Is(err, io.EOF) {
			return 0, err
		}
		for at := 0; ; at += len(magic) {
			i := bytes.Index(window[at:n], magic)
			if i < 0 {
				break
			}
			at += i
			if index := o.entryAt(r, offset+int64(at)); index >= from {
				return index, nil
			}
		}
		if err != nil {
			return 0, nil
		}
		offset += int64(n - len(magic) + 1)
	}
}

// entryAt returns the index of the intact entry at offset, 0 if there is none.
func (o *Outbox) entryAt(r io.ReaderAt, offset int64) uint64 {
	header := make([]byte, entryHeader)
	if _, err := r.ReadAt(header, offset); err != nil {
		return 0
	}
	size := int64(entryHeader) + int64(binary.BigEndian.Uint32(header[16:]))
	if size > segment.MaxEntrySize {
		return 0
	}
	// Grows with what the file has, not with what the header says.
	entry, err := io.ReadAll(io.NewSectionReader(r, offset, size))
	if err != nil {
		return 0
	}
	index, _, err := openEntry(entry, o.seed)
	if err != nil {
		return 0
	}
	return index
}
