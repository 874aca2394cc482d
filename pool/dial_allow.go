package pool

import (
	"net/netip"

	"github.com/buffstreams/watermill-buffstreams/internal/netio"
)

// DialAllow is the list of addresses that a Manager may connect to. It is applied to the address that each connection
// is really made to, after every lookup of names: a name that points elsewhere by then is refused, with a
// *DialDeniedError. The zero value allows nothing.
//
// Link-local addresses, and those at which clouds serve metadata and credentials, are allowed only by a prefix that
// lies within their range, such as 169.254.169.254/32: 0.0.0.0/0 does not allow them.
type DialAllow struct {
	// Prefixes are the networks that may be dialed. An IPv4 address is the same in its IPv6 form (::ffff:10.0.0.1).
	Prefixes []netip.Prefix
	// Ports are the ports that may be dialed. Empty means all.
	Ports []uint16
	// UnixDirs are the directories whose Unix sockets may be dialed, including those in their subdirectories. Symbolic
	// links in them are followed, also out of them.
	UnixDirs []string
}

// guard returns dial, or one of package net for nil, limited to the list. A nil list allows everything.
func (d *DialAllow) guard(dial DialFunc) DialFunc {
	if d == nil {
		return dial
	}
	return (*netio.DialAllow)(d).Guard(dial)
}

// ErrDialDenied is matched by every *DialDeniedError.
var ErrDialDenied = netio.ErrDialDenied

// DialDeniedError says that a DialAllow does not allow an address. Its field Address, a string, is the address that was
// asked for, or the one that it resolved to.
type DialDeniedError = netio.DialDeniedError
