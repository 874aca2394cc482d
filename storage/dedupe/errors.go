package dedupe

import (
	"errors"
	"fmt"

	"github.com/buffstreams/watermill-buffstreams/storage/internal/boltfile"
)

var (
	// ErrLocked means that another process, or another Store of this process, has the file open.
	ErrLocked = errors.New("dedupe: the file is in use: only one process can open it at a time")
	// ErrFailed means that a write or an fsync failed, and is wrapped together with the cause. It is not known what the
	// disk holds then, so every later call of Load, Save and Forget returns the same error: close the store, and open
	// it anew once the cause is gone.
	ErrFailed = errors.New("dedupe: stopped after a failed write")
)

// CorruptError says why the file cannot be trusted. To go on without it, move the file away: Open then creates a new
// one. Publishers that send messages again, which the lost file knew, have them delivered again.
type CorruptError struct {
	Path   string // of the file
	Reason string
	Err    error // the cause, or nil
}

func (e *CorruptError) Error() string {
	text := fmt.Sprintf("dedupe: %s is damaged: %s", e.Path, e.Reason)
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	return text + " (if you move the file away, a new one is created, and messages that were handled can be delivered again)"
}

// Unwrap returns the cause.
func (e *CorruptError) Unwrap() error { return e.Err }

func damaged(format string, args ...any) error {
	return &CorruptError{Reason: fmt.Sprintf(format, args...)}
}

// wrap makes an error of a transaction one of this package.
func (s *Store) wrap(err error) error {
	var corrupt *CorruptError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &corrupt):
		corrupt.Path = s.cfg.Path
		return corrupt
	case isDamage(err):
		return &CorruptError{Path: s.cfg.Path, Reason: "the B-tree", Err: err}
	}
	return fmt.Errorf("dedupe: %s: %w", s.cfg.Path, err)
}

func isDamage(err error) bool {
	var damage *boltfile.DamageError
	return errors.As(err, &damage)
}
