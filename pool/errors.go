package pool

import (
	"errors"
	"fmt"

	"github.com/buffstreams/watermill-buffstreams/internal/netio"
)

// Errors that calls return. Compare with errors.Is.
var (
	// ErrAlreadyOpened says that the address is dialed or listened on already, is being opened, or is still being
	// closed.
	ErrAlreadyOpened = errors.New("pool: address is already open; close it first")

	// ErrNotOpened says that the address was not opened, or not yet completely.
	ErrNotOpened = errors.New("pool: address is not open; open it with Dial or StartListening first")

	// ErrClosed says that the Manager, Writer or Listener was closed, and that the call had no effect. As the Err of a
	// FailedError it says that Close gave up.
	ErrClosed = errors.New("pool: closed")

	// ErrCloseTimeout says that a callback, a failure handler or the reader of a channel was still busy when
	// CloseTimeout was over.
	ErrCloseTimeout = errors.New("pool: CloseTimeout is over and a callback or channel of the caller is still busy")

	// ErrInsecureAddress is matched by every *InsecureAddressError.
	ErrInsecureAddress = netio.ErrInsecureAddress
)

var errPeerClosed = errors.New("pool: the peer closed the connection")

// InsecureAddressError refuses to listen without TLS at an address that other machines can reach, where
// ListenerConfig.Insecure is not set. Its field Address, a string, is that address.
type InsecureAddressError = netio.InsecureAddressError

// FailedError says how many messages that Write had accepted will not be sent. A Writer with OnFailure or Failures
// hands them over besides; without, nothing else reports them.
type FailedError struct {
	// Count is the number of messages.
	Count int
	// Err says why the last attempt failed.
	Err error
}

func (e *FailedError) Error() string {
	return fmt.Sprintf("pool: %d accepted messages could not be sent: %v", e.Count, e.Err)
}

// Unwrap returns Err.
func (e *FailedError) Unwrap() error { return e.Err }

// Failure is one message that a Writer gave up on.
type Failure struct {
	// Address is the Writer's, as configured.
	Address string
	// Payload is the message without its header. The receiver of the Failure owns it; it can hold up to BufferSize
	// bytes of other messages in memory.
	Payload []byte
	// Err says why the last attempt failed.
	Err error
}

func configError(field, format string, args ...any) error {
	return fmt.Errorf("pool: %s: %w", field, fmt.Errorf(format, args...))
}
