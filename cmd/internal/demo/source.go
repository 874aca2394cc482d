package demo

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// file is one that is to be published.
type file struct {
	path string // to open it
	name string // below the source, with slashes
	size int64  // when it was found
}

// findFiles lists every regular file below root whose name ends in .go, hidden ones and testdata included. Links are
// not followed, except root itself. Folders that cannot be read are told to skipped and passed over.
func findFiles(root string, skipped func(name string, err error)) ([]file, error) {
	root, err := filepath.EvalSymlinks(root)
	if err != nil {
		return nil, err
	}
	info, err := os.Stat(root)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return nil, fmt.Errorf("%s is not a folder", root)
	}
	var files []file
	err = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			skipped(path, err)
			return nil // WalkDir goes on behind a folder that it cannot read
		}
		if !entry.Type().IsRegular() || !strings.HasSuffix(entry.Name(), ".go") {
			return nil
		}
		f, err := newFile(root, path, entry)
		files = append(files, f)
		return err
	})
	return files, err
}

// newFile leaves it to the reader to find out that a file vanished meanwhile.
func newFile(root, path string, entry fs.DirEntry) (file, error) {
	f := file{path: path}
	if info, err := entry.Info(); err == nil {
		f.size = info.Size()
	}
	name, err := filepath.Rel(root, path)
	f.name = filepath.ToSlash(name)
	return f, err
}

// tooLargeError is a file over the limit.
type tooLargeError struct {
	size  int64
	limit int
}

func (e *tooLargeError) Error() string {
	return fmt.Sprintf("its %d bytes are over the limit of %d; raise --max-message-size", e.size, e.limit)
}

// read returns the content. Memory is bounded by the limit, also where the file has grown since it was found.
func (f file) read(limit int) (content []byte, err error) {
	if f.size > int64(limit) {
		return nil, &tooLargeError{f.size, limit}
	}
	r, err := os.Open(f.path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	content = make([]byte, f.size+1) // one more, to see the end at once
	n, err := io.ReadFull(r, content)
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return content[:n], nil
	case err != nil:
		return nil, err
	}
	rest, err := io.ReadAll(io.LimitReader(r, int64(limit)+1-int64(n)))
	content = append(content, rest...)
	if err == nil && len(content) > limit {
		err = &tooLargeError{int64(len(content)), limit}
	}
	return content, err
}
