package pipe

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/buffstreams/watermill-buffstreams/storage/outbox"
	"github.com/buffstreams/watermill-buffstreams/store"
)

// largestStored is the limit of --max-message-size with an outbox: a batch of lines is stored whole or not at all, so
// one such line has to fit into an append together with what was gathered before it.
const largestStored = outbox.MaxAppendBytes - 2<<20

// OpenOutbox opens the outbox in dir. Only with create it makes one, and never in a directory that holds anything else.
func OpenOutbox(dir string, create bool) (*outbox.Outbox, error) {
	if err := checkOutbox(dir, create); err != nil {
		return nil, err
	}
	box, err := outbox.Open(outbox.Config{Dir: dir})
	var damage *store.CorruptError
	switch {
	case errors.Is(err, outbox.ErrLocked):
		return nil, fmt.Errorf("the outbox %s is in use by another process", dir)
	case errors.As(err, &damage):
		return nil, fmt.Errorf("the outbox %s cannot be opened; nothing of it was sent or changed: %w", dir, damage)
	}
	return box, err
}

// checkOutbox refuses what the library would turn into an outbox although nobody meant that.
func checkOutbox(dir string, create bool) error {
	info, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) && create {
		return nil
	}
	if err != nil {
		return fmt.Errorf("no outbox in %s: %w", dir, reason(err))
	}
	if !info.IsDir() {
		return fmt.Errorf("no outbox in %s: it is a file; an outbox is a directory", dir)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("no outbox in %s: %w", dir, reason(err))
	}
	_, missing := os.Stat(filepath.Join(dir, "wal-meta.db"))
	switch bare := len(entries) == 0 || len(entries) == 1 && entries[0].Name() == "lock"; {
	case missing == nil && holds(entries, "lock"), bare && create:
		return nil
	case bare:
		return fmt.Errorf("no outbox in %s: the directory is empty", dir)
	}
	return fmt.Errorf("no outbox in %s: the directory holds something else; an outbox needs one for itself alone", dir)
}

func holds(entries []os.DirEntry, name string) bool {
	for _, e := range entries {
		if e.Name() == name {
			return true
		}
	}
	return false
}

// reason leaves out what the caller has said already: operation and path.
func reason(err error) error {
	var at *fs.PathError
	if errors.As(err, &at) {
		return at.Err
	}
	return err
}
