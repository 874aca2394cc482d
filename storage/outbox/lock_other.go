//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd)

package outbox

import (
	"errors"
	"fmt"
	"io"
)

// lockDir refuses: without a lock that dies with its process, two of them could
// write the same log.
func lockDir(string) (io.Closer, error) {
	return nil, fmt.Errorf("outbox: this system has no file locks that the outbox can use: %w", errors.ErrUnsupported)
}
