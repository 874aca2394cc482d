package netio

import (
	"errors"
	"io/fs"
	"syscall"
)

// Refused tells whether an error of a dial says that nothing listens at the address: of several that were tried, at
// any.
func Refused(err error) bool {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		all := joined.Unwrap()
		for _, err := range all {
			if !Refused(err) {
				return false
			}
		}
		return len(all) > 0
	}
	if next := errors.Unwrap(err); next != nil {
		return Refused(next)
	}
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist) // the file of a Unix socket
}
