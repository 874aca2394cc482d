package outbox

import (
	"errors"
	"io"

	"github.com/hashicorp/raft-wal/segment"
	"github.com/hashicorp/raft-wal/types"
)

// closingFS is for one call of the engine, which leaves the file open that it
// opened or made when it fails afterwards: reading a damaged segment again and
// again would use up the descriptors.
type closingFS struct {
	types.VFS
	opened io.Closer
}

func (fs *closingFS) Create(dir, name string, size uint64) (types.WritableFile, error) {
	f, err := fs.VFS.Create(dir, name, size)
	if err == nil {
		fs.opened = f
	}
	return f, err
}

func (fs *closingFS) OpenReader(dir, name string) (types.ReadableFile, error) {
	f, err := fs.VFS.OpenReader(dir, name)
	if err == nil {
		fs.opened = f
	}
	return f, err
}

func (fs *closingFS) OpenWriter(dir, name string) (types.WritableFile, error) {
	f, err := fs.VFS.OpenWriter(dir, name)
	if err == nil {
		fs.opened = f
	}
	return f, err
}

// engine calls the engine with call, and cleans up after it.
func engine[T any](l *segmentLog, call func(*segment.Filer) (T, error)) (T, error) {
	fs := &closingFS{VFS: l.fs}
	result, err := call(segment.NewFiler(l.dir, fs))
	if err != nil && fs.opened != nil {
		err = errors.Join(err, fs.opened.Close())
	}
	return result, err
}

func (l *segmentLog) create(info types.SegmentInfo) (types.SegmentWriter, error) {
	return engine(l, func(f *segment.Filer) (types.SegmentWriter, error) { return f.Create(info) })
}

func (l *segmentLog) recoverTail(info types.SegmentInfo) (types.SegmentWriter, error) {
	return engine(l, func(f *segment.Filer) (types.SegmentWriter, error) { return f.RecoverTail(info) })
}

func (l *segmentLog) openSealed(info types.SegmentInfo) (types.SegmentReader, error) {
	return engine(l, func(f *segment.Filer) (types.SegmentReader, error) { return f.Open(info) })
}
