package outbox

import (
	"errors"
)

// ErrLocked means that another process, or another Outbox of this process, has the directory open. The other errors are
// in package store.
var ErrLocked = errors.New("outbox: the directory is in use: only one process can open an outbox at a time")
