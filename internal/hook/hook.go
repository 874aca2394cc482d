// Package hook calls functions of the user's configuration.
package hook

import "fmt"

// Call calls f in the caller's goroutine, and returns an error if f panics: a hook that panics has refused.
func Call(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("buffstreams: the hook panicked: %v", p)
		}
	}()
	return f()
}
