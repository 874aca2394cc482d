//go:build !unix

package pool

import "net"

// tryWriter would write to a socket what that takes at once.
type tryWriter struct{}

// newTryWriter returns nil: all writes are a flusher's.
func newTryWriter(net.Conn) *tryWriter { return nil }

func (*tryWriter) write([]byte) (int, error) { return 0, nil }
