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

func Listen(network, address string) (net.Listener, error) {
	return (&net.ListenConfig{}).Listen(context.Background(), network, address)
}

// dialFunc opens a connection.
type Dial = func(ctx context.Context, network, address string) (net.Conn, error)
