package netio

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
)

// DialAllow limits where a Manager connects to. It is checked at each connect against the address that is really
// connected to, after every lookup of names: a name that points elsewhere by then is refused. The zero value allows
// nothing. It is safe for concurrent use, as nothing changes it.
//
// Link-local addresses and those at which clouds serve metadata and credentials are allowed only by a prefix that lies
// within their range, such as 169.254.169.254/32: 0.0.0.0/0 does not.
type DialAllow struct {
	// Prefixes are the networks that may be dialed. An IPv4 address is the same in its IPv6 form (::ffff:10.0.0.1).
	Prefixes []netip.Prefix
	// Ports are the ports that may be dialed; empty means all.
	Ports []uint16
	// UnixDirs are directories whose Unix sockets may be dialed, those in directories below included. A symbolic link
	// in them can lead out of them.
	UnixDirs []string
}

// ErrDialDenied is what every *DialDeniedError matches.
var ErrDialDenied = errors.New("buffstreams: ManagerConfig.DialAllow does not allow this address")

// DialDeniedError says that an address is not allowed to be dialed.
type DialDeniedError struct {
	// Address is the target, or what it resolved to.
	Address string
}

func (e *DialDeniedError) Error() string {
	return fmt.Sprintf("%v: %s; add its network to DialAllow if it should be", ErrDialDenied, Quote(e.Address))
}

// Unwrap makes errors.Is(err, ErrDialDenied) true.
func (e *DialDeniedError) Unwrap() error { return ErrDialDenied }

// special are the ranges that a wider prefix does not allow.
var special = []netip.Prefix{
	netip.MustParsePrefix("169.254.0.0/16"),     // link-local, and most clouds' metadata
	netip.MustParsePrefix("fe80::/10"),          // link-local
	netip.MustParsePrefix("fd00:ec2::/32"),      // AWS metadata, time and DNS
	netip.MustParsePrefix("fd20:ce::254/128"),   // Google Cloud metadata
	netip.MustParsePrefix("100.100.100.200/32"), // Alibaba Cloud metadata
	netip.MustParsePrefix("168.63.129.16/32"),   // Azure's agent
}

// translated are the ranges whose addresses lead to the IPv4 address that is in their bytes from at on.
var translated = []struct {
	prefix netip.Prefix
	at     int
}{
	{netip.MustParsePrefix("64:ff9b::/96"), 12}, // NAT64
	{netip.MustParsePrefix("2002::/16"), 2},     // 6to4
	{netip.MustParsePrefix("::/96"), 12},        // IPv4-compatible
}

// Allows returns a *DialDeniedError unless the address may be dialed. The network is tcp, tcp4, tcp6 or unix; the
// address is resolved.
func (d *DialAllow) Allows(network, address string) error {
	denied := &DialDeniedError{Address: address}
	if strings.HasPrefix(network, "unix") {
		if !d.allowsPath(address) {
			return denied
		}
		return nil
	}
	at, err := netip.ParseAddrPort(address)
	if err != nil || len(d.Ports) > 0 && !slices.Contains(d.Ports, at.Port()) {
		return denied
	}
	if !d.allowsIP(at.Addr()) {
		return denied
	}
	return nil
}

func (d *DialAllow) allowsPath(path string) bool {
	if !filepath.IsAbs(path) { // which an abstract socket of Linux, that begins with @, is not
		return false
	}
	for _, dir := range d.UnixDirs {
		if rel, err := filepath.Rel(dir, path); err == nil && filepath.IsLocal(rel) {
			return true
		}
	}
	return false
}

func (d *DialAllow) allowsIP(ip netip.Addr) bool {
	ip = plainIP(ip)
	if v4, ok := translation(ip); ok {
		if within := rangeOf(v4); within.IsValid() && !d.covers(v4, within) {
			return false
		}
	}
	return d.covers(ip, rangeOf(ip))
}

// covers tells whether a prefix that lies within the given range contains ip.
func (d *DialAllow) covers(ip netip.Addr, within netip.Prefix) bool {
	for _, p := range d.Prefixes {
		p = plainPrefix(p)
		if p.Contains(ip) && (!within.IsValid() || p.Bits() >= within.Bits()) {
			return true
		}
	}
	return false
}

// plainIP is the address that a dial of ip ends at: without a zone, IPv4 where it is that, loopback where it is
// unspecified.
func plainIP(ip netip.Addr) netip.Addr {
	ip = ip.WithZone("").Unmap()
	switch ip {
	case netip.IPv4Unspecified():
		return netip.AddrFrom4([4]byte{127, 0, 0, 1})
	case netip.IPv6Unspecified():
		return netip.IPv6Loopback()
	}
	return ip
}

func plainPrefix(p netip.Prefix) netip.Prefix {
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		return netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p
}

// rangeOf is the special range that ip is in, or the zero Prefix.
func rangeOf(ip netip.Addr) netip.Prefix {
	for _, p := range special {
		if p.Contains(ip) {
			return p
		}
	}
	return netip.Prefix{}
}

// translation is the IPv4 address that a gateway takes ip to.
func translation(ip netip.Addr) (netip.Addr, bool) {
	for _, t := range translated {
		if t.prefix.Contains(ip) && ip != netip.IPv6Loopback() {
			b := ip.As16()
			return netip.AddrFrom4([4]byte(b[t.at : t.at+4])), true
		}
	}
	return netip.Addr{}, false
}

// Guard returns a Dial that dials only what d allows. If dial is nil, it is that of a Dialer, and a denied address is
// not even connected to. A connection that the user's own dial has made is judged before its first byte, and closed
// if it is denied or has no address to judge.
func (d *DialAllow) Guard(dial Dial) Dial {
	if dial == nil {
		return (&Dialer{Control: d.Allows}).DialContext
	}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		remote := conn.RemoteAddr()
		if remote == nil {
			return nil, errors.Join(&DialDeniedError{Address: address}, conn.Close())
		}
		if err := d.Allows(remote.Network(), remote.String()); err != nil {
			return nil, errors.Join(err, conn.Close())
		}
		return conn, nil
	}
}

// AllowsLiteral is Allows for a target that needs no lookup, so that a message that can never be sent is not accepted.
// It returns nil for a host name, which Guard judges, and if d is nil.
func (d *DialAllow) AllowsLiteral(t Target) error {
	if d == nil {
		return nil
	}
	if _, err := netip.ParseAddrPort(t.Address); err != nil && t.Network != "unix" {
		return nil
	}
	return d.Allows(t.Network, t.Address)
}

// Validate returns an error that names a prefix or directory that can match nothing. A nil *DialAllow is valid.
func (d *DialAllow) Validate() error {
	if d == nil {
		return nil
	}
	for _, p := range d.Prefixes {
		if !p.IsValid() {
			return errors.New("a prefix is invalid: its bits do not fit its address")
		}
	}
	for _, dir := range d.UnixDirs {
		if !filepath.IsAbs(dir) {
			return fmt.Errorf("the directory %.100q is not absolute", dir)
		}
	}
	return nil
}
