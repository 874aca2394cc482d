package pool

import (
	"errors"
	"fmt"
)

// Sentinels for states. Compare with errors.Is.
var (
	// ErrAlreadyOpened says that the address is open already: dialled or
	// listened on, being opened, or still being closed.
	ErrAlreadyOpened = errors.New("pool: address is already open; close it first")

	// ErrNotOpened says that nobody opened the address, or not yet completely.
	ErrNotOpened = errors.New("pool: address is not open; open it with Dial or StartListening first")

	// ErrClosed says that the Manager, Writer or Listener was closed. What was
	// passed to the call that returns it was not taken.
	ErrClosed = errors.New("pool: closed")

	// ErrCloseTimeout says that the user's own code (a callback, a failure
	// handler, a reader of a channel) still held on when CloseTimeout was over.
	ErrCloseTimeout = errors.New("pool: CloseTimeout is over and a callback or channel of the caller is still busy")

	// errPeerClosed is the cause reported when the peer ended the connection.
	errPeerClosed = errors.New("pool: the peer closed the connection")
)

// FailedError tells how many accepted messages will not be sent any more, and
// why. A Writer with a failure handler has handed them to it; without one this
// error is the only word of them.
type FailedError struct {
	Count int
	Err   error
}

func (e *FailedError) Error() string {
	return fmt.Sprintf("pool: %d accepted messages could not be sent: %v", e.Count, e.Err)
}

func (e *FailedError) Unwrap() error { return e.Err }

// Failure is one message that a Writer gave up on.
type Failure struct {
	// Address is the Writer's, as configured.
	Address string
	// Payload is the message without its header. It belongs to the receiver of
	// the Failure; while kept it may pin up to BufferSize bytes around it.
	Payload []byte
	// Err says why the last attempt failed.
	Err error
}

func configError(field, format string, args ...any) error {
	return fmt.Errorf("pool: %s: %w", field, fmt.Errorf(format, args...))
}
