package netio

import (
	"context"
	"net"
)

// Target says where to dial or listen.
type Target struct {
	Network string // "tcp" or "unix"
	Address string // host:port or path
	TLS     bool
}

// Dial opens a connection. It respects its context.
type Dial = func(ctx context.Context, network, address string) (net.Conn, error)
