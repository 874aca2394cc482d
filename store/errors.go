package store

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// The errors of an [Outbox] that carry no details. They may be wrapped: match them with errors.Is.
var (
	// ErrClosed means that the outbox was closed.
	ErrClosed = errors.New("outbox: closed")
	// ErrOutboxFull means that the destination has reached its quota and that nothing was stored. The error that
	// matches it is a [*FullError].
	ErrOutboxFull = errors.New("outbox: full")
	// ErrFailed means that a write or an fsync failed, and is wrapped together with the cause. It is not known what the
	// disk holds then, so the outbox tries nothing again: the owner must close it and open it anew.
	ErrFailed = errors.New("outbox: stopped after a failed write")
	// ErrUnknownStream means that there is no stream with the given key: nothing was appended to it, or it was
	// forgotten.
	ErrUnknownStream = errors.New("outbox: unknown stream")
	// ErrPending means that Forget was called for a stream that has pending messages.
	ErrPending = errors.New("outbox: the stream has pending messages")
	// ErrNotReady is what every [*NotReadyError] matches.
	ErrNotReady = errors.New("outbox: not ready")
)

// NotReadyError says why an outbox would not take messages. It matches [ErrNotReady] and whatever its reasons match,
// such as [ErrOutboxFull], [ErrFailed] and [ErrClosed].
type NotReadyError struct {
	Outbox  string  // what the outbox calls itself, such as its directory
	Reasons []error // at least one
}

func (e *NotReadyError) Error() string {
	texts := make([]string, len(e.Reasons))
	for i, reason := range e.Reasons {
		texts[i] = reason.Error()
	}
	return fmt.Sprintf("%v: %s: %s", ErrNotReady, e.Outbox, strings.Join(texts, "; "))
}

// Unwrap returns ErrNotReady and the reasons.
func (e *NotReadyError) Unwrap() []error { return append([]error{ErrNotReady}, e.Reasons...) }

// SlowDiskError reports that a write to the disk has not ended for long. Append waits for it.
type SlowDiskError struct {
	Since time.Time // when it has begun
}

func (e *SlowDiskError) Error() string {
	return "outbox: a write to the disk has been under way since " + e.Since.Format(time.RFC3339)
}

// FullError reports that Append would have exceeded the quota of a destination. Nothing was stored. It matches
// [ErrOutboxFull].
type FullError struct {
	Destination string
	Pending     int64 // what the destination has pending, in bytes
	Wanted      int64 // what the call would have added, in bytes
	Quota       int64 // in bytes
}

func (e *FullError) Error() string {
	return fmt.Sprintf("outbox: full: destination %.100q has %d bytes pending and %d more exceed its quota of %d",
		e.Destination, e.Pending, e.Wanted, e.Quota)
}

// Is reports whether target is [ErrOutboxFull].
func (e *FullError) Is(target error) bool { return target == ErrOutboxFull }

// SizeError reports that an argument of Append exceeds a limit of the outbox. Nothing was stored.
type SizeError struct {
	What  string // "messages", "destination" or "topic"
	Size  int    // in bytes
	Limit int    // in bytes
}

func (e *SizeError) Error() string {
	return fmt.Sprintf("outbox: %s of %d bytes in one append exceed the limit of %d", e.What, e.Size, e.Limit)
}

// UnconfirmedError is returned by Append when its context ended before the messages were durable. They have their
// sequences and will most likely be delivered: appending them again can duplicate them.
type UnconfirmedError struct {
	First uint64 // the sequence of the first message
	Count int    // the number of messages
	Err   error  // the context's error
}

func (e *UnconfirmedError) Error() string {
	return fmt.Sprintf("outbox: gave up waiting for the fsync of %d messages from sequence %d: %v", e.Count, e.First, e.Err)
}

// Unwrap returns the context's error.
func (e *UnconfirmedError) Unwrap() error { return e.Err }

// CorruptError reports damage that a crash cannot explain. Read returns it for messages of one stream that it cannot
// read, and the function that opens the outbox for a log whose end cannot be trusted. An outbox skips no damage
// silently.
type CorruptError struct {
	File   string // the name of the damaged file within the outbox, or empty
	Index  uint64 // the first damaged record of the log, or 0 if the damage is not in a record
	Reason string
	Err    error // the cause, or nil

	// Key, From and Through say which messages cannot be read, both ends included, as far as Read can tell. A reader
	// that settles them can read the messages behind them. From is 0 if the error does not come from Read.
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

// Unwrap returns the cause.
func (e *CorruptError) Unwrap() error { return e.Err }
