package outbox

import (
	"errors"
	"fmt"
)

var (
	// ErrClosed is returned by every call after Close began.
	ErrClosed = errors.New("outbox: closed")
	// ErrLocked means that another process, or another Outbox of this one, has
	// the directory open.
	ErrLocked = errors.New("outbox: the directory is in use: only one process can open an outbox at a time")
	// ErrOutboxFull means that the destination reached its quota; nothing was
	// written. FullError carries the figures.
	ErrOutboxFull = errors.New("outbox: full")
	// ErrFailed is wrapped, with its cause, by every call after a write or an
	// fsync failed. What the disk holds then is not known, so the outbox never
	// tries again: open it anew once the cause is gone.
	ErrFailed = errors.New("outbox: stopped after a failed write")
	// ErrUnknownStream means that the key has no stream: nothing was appended
	// to it yet, or it was forgotten.
	ErrUnknownStream = errors.New("outbox: unknown stream")
	// ErrPending is returned by Forget for a stream that is not drained.
	ErrPending = errors.New("outbox: the stream still has pending messages")
)

// FullError says which quota kept messages out. It matches ErrOutboxFull.
type FullError struct {
	Destination string
	Pending     int64 // bytes that the destination has pending
	Wanted      int64 // bytes that the call would have added
	Quota       int64
}

func (e *FullError) Error() string {
	return fmt.Sprintf("outbox: full: destination %.100q has %d bytes pending and %d more exceed its quota of %d",
		e.Destination, e.Pending, e.Wanted, e.Quota)
}

// Is makes errors.Is(err, ErrOutboxFull) hold.
func (e *FullError) Is(target error) bool { return target == ErrOutboxFull }

// SizeError says which limit an argument of Append exceeded; nothing was
// written.
type SizeError struct {
	What  string // "messages", "destination" or "topic"
	Size  int    // bytes
	Limit int
}

func (e *SizeError) Error() string {
	return fmt.Sprintf("outbox: %s of %d bytes in one append exceed the limit of %d", e.What, e.Size, e.Limit)
}

// UnconfirmedError is returned by Append when its context ended before the
// fsync did. The messages have their sequences and will most likely be
// delivered: appending them again can duplicate them.
type UnconfirmedError struct {
	First uint64 // sequence of the first message
	Count int
	Err   error // the context's
}

func (e *UnconfirmedError) Error() string {
	return fmt.Sprintf("outbox: gave up waiting for the fsync of %d messages from sequence %d: %v", e.Count, e.First, e.Err)
}

func (e *UnconfirmedError) Unwrap() error { return e.Err }

// CorruptError reports damage that a crash cannot explain. Open returns it when
// the end of the log cannot be trusted, Read when messages of one stream cannot
// be read; nothing is ever skipped without it.
type CorruptError struct {
	File   string // name inside the directory
	Index  uint64 // first damaged record of the log, 0 if it is not one record
	Reason string
	Err    error // cause, may be nil

	// Key, From and Through say which messages are lost as far as Read can
	// tell. A reader that Settles that range goes on behind the damage.
	Key           Key
	From, Through uint64
}

func (e *CorruptError) Error() string {
	text := "outbox: damaged: " + e.Reason
	if e.File != "" {
		text += " in " + e.File
	}
	if e.Index != 0 {
		text += fmt.Sprintf(" at record %d", e.Index)
	}
	if e.From != 0 {
		text += fmt.Sprintf(": sequences %d to %d of %.100q %.100q cannot be read",
			e.From, e.Through, e.Key.Destination, e.Key.Topic)
	}
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	return text
}

func (e *CorruptError) Unwrap() error { return e.Err }
