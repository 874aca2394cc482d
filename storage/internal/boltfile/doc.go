// Package boltfile opens bbolt's files so that neither a crash nor damage in
// them surprises anybody.
//
// bbolt trusts its file: on a damaged page it panics, loops, or follows a
// pointer out of the mapped memory, which no recover catches. It also builds on
// what the system shows of the file, although a predecessor that was killed
// before its fsync, or saw that fail, leaves a state there that the disk does
// not have. So every page that the tree reaches is looked at first, and the
// newest commit is made durable before anything is built upon it.
package boltfile

import (
	"errors"
	"fmt"
)

// ErrLocked means that another process has the file open.
var ErrLocked = errors.New("boltfile: the file is in use")

// DamageError says why a file cannot be opened.
type DamageError struct{ Reason string }

func (e *DamageError) Error() string { return "boltfile: " + e.Reason }

func damage(format string, args ...any) error {
	return &DamageError{Reason: fmt.Sprintf(format, args...)}
}
