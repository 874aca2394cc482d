package outbox

import (
	"errors"
	"io"

	"github.com/hashicorp/raft-wal/segment"
	"github.com/hashicorp/raft-wal/types"
)

// engineFS is the file system for one call of the engine, and remembers the file that the call opened. An engine that
// fails afterwards leaves the file open, and repeated reads of a damaged segment would use up the descriptors.
type engineFS struct {
	types.VFS
	opened io.Closer
}

func (fs *engineFS) Create(dir, name string, size uint64) (types.WritableFile, error) {
	f, err := fs.VFS.Create(dir, name, size)
	if err == nil {
		fs.opened = f
	}
	return f, err
}

func (fs *engineFS) OpenReader(dir, name string) (types.ReadableFile, error) {
	f, err := fs.VFS.OpenReader(dir, name)
	if err == nil {
		fs.opened = f
	}
	return f, err
}

func (fs *engineFS) OpenWriter(dir, name string) (types.WritableFile, error) {
	f, err := fs.VFS.OpenWriter(dir, name)
	if err == nil {
		fs.opened = f
	}
	return f, err
}

// callEngine calls the engine with call, and closes the file that a failed call left open.
func callEngine[T any](l *segmentLog, call func(*segment.Filer) (T, error)) (T, error) {
	fs := &engineFS{VFS: l.fs}
	result, err := call(segment.NewFiler(l.dir, fs))
	if err != nil && fs.opened != nil {
		err = errors.Join(err, fs.opened.Close())
	}
	return result, err
}

func (l *segmentLog) create(info types.SegmentInfo) (types.SegmentWriter, error) {
	return callEngine(l, func(f *segment.Filer) (types.SegmentWriter, error) { return f.Create(info) })
}

func (l *segmentLog) recoverTail(info types.SegmentInfo) (types.SegmentWriter, error) {
	return callEngine(l, func(f *segment.Filer) (types.SegmentWriter, error) { return f.RecoverTail(info) })
}

func (l *segmentLog) openSealed(info types.SegmentInfo) (types.SegmentReader, error) {
	return callEngine(l, func(f *segment.Filer) (types.SegmentReader, error) { return f.Open(info) })
}
