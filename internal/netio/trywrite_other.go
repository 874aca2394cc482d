//go:build !unix

package netio

import "net"

// TryWriter would write to a socket what that takes at once.
type TryWriter struct{}

// NewTryWriter returns nil: all writes are a flusher's.
func NewTryWriter(net.Conn) *TryWriter { return nil }

func (*TryWriter) Write([]byte) (int, error) { return 0, nil }
