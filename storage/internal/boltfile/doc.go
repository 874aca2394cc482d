// Package boltfile opens the files of bbolt safely after a crash and after damage.
//
// bbolt trusts its file: on a damaged page it panics, loops, or follows a pointer out of the mapped memory, which
// recover does not catch. It also builds on the bytes that the system shows, although a process that was killed before
// its fsync, or saw it fail, leaves bytes there that the disk does not have. So this package verifies every page that
// the tree reaches, and makes the newest commit durable, before bbolt builds on them.
package boltfile

import (
	"errors"
	"fmt"
)

// ErrLocked means that another process has the file open.
var ErrLocked = errors.New("boltfile: the file is in use")

// DamageError says why a file cannot be trusted.
type DamageError struct{ Reason string }

func (e *DamageError) Error() string { return "boltfile: " + e.Reason }

func damage(format string, args ...any) error {
	return &DamageError{Reason: fmt.Sprintf(format, args...)}
}
