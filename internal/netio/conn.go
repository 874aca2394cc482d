// Package netio is what both halves of the protocol and the plain wire need of the network: targets, allow-lists, TLS,
// backoff, writes that do not block, and text of peers made safe for logs.
package netio

import (
	"context"
	"crypto/tls"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// Target says where to dial or listen.
type Target struct {
	Network string // "tcp" or "unix"
	Address string // host:port or path
	TLS     bool
	// ServerName is what the peer's certificate must name; empty: the host of Address.
	ServerName string
}

// Canonical returns what all spellings of a target have in common: the case of a host name means nothing, and an IP
// address or a port can be written in several ways.
func (t Target) Canonical() Target {
	host, port, err := net.SplitHostPort(t.Address)
	if t.Network != "tcp" || err != nil {
		return t
	}
	host = strings.ToLower(host)
	if ip, err := netip.ParseAddr(host); err == nil {
		host = ip.Unmap().String()
	}
	if n, err := strconv.ParseUint(port, 10, 16); err == nil {
		port = strconv.FormatUint(n, 10)
	}
	t.Address, t.ServerName = net.JoinHostPort(host, port), strings.ToLower(t.ServerName)
	return t
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
