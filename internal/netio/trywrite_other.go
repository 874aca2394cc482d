//go:build !unix

package netio

import "net"

// TryWriter does not exist on this system.
type TryWriter struct{}

// NewTryWriter returns nil: every write may block.
func NewTryWriter(net.Conn) *TryWriter { return nil }

// Write is never called.
func (*TryWriter) Write([]byte) (int, error) { return 0, nil }
