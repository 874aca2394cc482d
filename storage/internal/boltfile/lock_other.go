//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd)

package boltfile

import (
	"os"
	"time"
)

// lock does nothing: on these systems a lock cannot be handed over to bbolt, which locks the file itself, later.
func lock(*os.File, time.Duration) error { return nil }
