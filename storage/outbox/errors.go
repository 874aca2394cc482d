package outbox

import "errors"

// The errors that only the owner of the directory meets. Those that publishers meet are in package store.
var (
	// ErrLocked means that another process, or another Outbox of this process, has the directory open.
	ErrLocked = errors.New("outbox: the directory is in use: only one process can open an outbox at a time")
	// ErrPending is returned by Forget for a stream that still has pending messages.
	ErrPending = errors.New("outbox: the stream still has pending messages")
)
