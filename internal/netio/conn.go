// Package netio is what both halves of the protocol and the plain wire need of the network: targets, allow-lists, TLS,
// backoff, writes that do not block, and text of peers made safe for logs.
package netio

import (
	"context"
	"crypto/tls"
	"net"
)

// Target says where to dial or listen.
type Target struct {
	Network string // "tcp" or "unix"
	Address string // host:port or path
	TLS     bool
	// ServerName is what the peer's certificate must name; empty: the host of Address.
	ServerName string
}

// Dial opens a connection, as net.Dialer.DialContext does. It respects its context.
type Dial = func(ctx context.Context, network, address string) (net.Conn, error)

// CloseNow closes conn without the closing alert of TLS, whose write can block for seconds on a peer that does not
// read.
func CloseNow(conn net.Conn) {
	if secured, ok := conn.(*tls.Conn); ok {
		conn = secured.NetConn()
	}
	_ = conn.Close() // the connection is given up in any case
}
