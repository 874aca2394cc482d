package pool

import (
	"net/netip"

	"github.com/buffstreams/watermill-buffstreams/internal/netio"
)

// DialAllow limits where a Manager connects to. Each connection is checked by the address that it is really made to, after
// every lookup of names: a name that points elsewhere by then is refused. The zero value allows nothing.
//
// Link-local addresses, and those at which clouds serve metadata and credentials, are allowed only by a prefix that lies
// within their range, such as 169.254.169.254/32: 0.0.0.0/0 does not allow them.
type DialAllow struct {
	// Prefixes are the networks that may be dialed. An IPv4 address is the same in its IPv6 form (::ffff:10.0.0.1).
	Prefixes []netip.Prefix
	// Ports are the ports that may be dialed. Empty means all.
	Ports []uint16
	// UnixDirs are the directories whose Unix sockets may be dialed, those in directories below them included. Whoever can
	// make symbolic links there can lead out of them.
	UnixDirs []string
}

// ErrDialDenied is matched by every *DialDeniedError.
var ErrDialDenied = netio.ErrDialDenied

// DialDeniedError says that a DialAllow does not allow an address. Its field Address, a string, is the address that was
// asked for, or the one that it resolved to.
type DialDeniedError = netio.DialDeniedError

// ErrInsecureAddress is matched by every *InsecureAddressError.
var ErrInsecureAddress = netio.ErrInsecureAddress

// InsecureAddressError refuses to listen without TLS at an address that other machines can reach, where Insecure is not set.
// Its field Address, a string, is that address.
type InsecureAddressError = netio.InsecureAddressError
