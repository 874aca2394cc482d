package netio

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
)

// ErrInsecureAddress is what every *InsecureAddressError matches.
var ErrInsecureAddress = errors.New("buffstreams: refusing to listen in plaintext beyond loopback")

// InsecureAddressError refuses a listening address that other machines can
// reach while there is neither TLS nor the user's explicit consent.
type InsecureAddressError struct {
	Address string
}

func (e *InsecureAddressError) Error() string {
	return fmt.Sprintf("%v: %s is not a loopback address; set TLSConfig, or Insecure: true to accept plaintext from anybody who can reach it",
		ErrInsecureAddress, Quote(e.Address))
}

// Unwrap makes errors.Is(err, ErrInsecureAddress) true.
func (e *InsecureAddressError) Unwrap() error { return ErrInsecureAddress }

// reachableFromOutside tells whether a literal listening address is open to
// other machines. A host name is not judged here: the bound socket's own
// address is, after it was resolved.
func Exposed(network, address string) bool {
	if !strings.HasPrefix(network, "tcp") {
		return false
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	if host == "" {
		return true
	}
	host, _, _ = strings.Cut(host, "%")
	ip := net.ParseIP(host)
	return ip != nil && !ip.IsLoopback()
}

// boundOutside is reachableFromOutside for a socket that exists.
func BoundBeyondLoopback(addr net.Addr) bool {
	if tcp, ok := addr.(*net.TCPAddr); ok {
		return !tcp.IP.IsLoopback()
	}
	if !strings.HasPrefix(addr.Network(), "tcp") {
		return false
	}
	at, err := netip.ParseAddrPort(addr.String()) // of a listener that is wrapped
	return err != nil || !at.Addr().Unmap().IsLoopback()
}

// hostOf is the part of a peer's address that its connections share: of IPv6 the /64, as each host has a whole one.
func HostOf(addr net.Addr) string {
	if addr == nil {
		return ""
	}
	tcp, ok := addr.(*net.TCPAddr)
	if !ok {
		return addr.Network()
	}
	ip := tcp.AddrPort().Addr().WithZone("").Unmap()
	if ip.Is6() && !ip.IsLoopback() {
		if p, err := ip.Prefix(64); err == nil {
			return p.String()
		}
	}
	return ip.String()
}
