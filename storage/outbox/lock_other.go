//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd)

package outbox

import (
	"errors"
	"fmt"
	"io"
)

// lockDir returns an error: without a lock that ends with its process, two processes could write the same log.
func lockDir(string) (io.Closer, error) {
	return nil, fmt.Errorf("outbox: this system has no file locks that the outbox can use: %w", errors.ErrUnsupported)
}
