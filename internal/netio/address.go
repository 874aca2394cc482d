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

// InsecureAddressError refuses a listening address that other machines can reach while there is neither TLS nor the
// user's explicit consent.
type InsecureAddressError struct {
	Address string
}

func (e *InsecureAddressError) Error() string {
	return fmt.Sprintf("%v: %s is not a loopback address; listen with TLS, or set Insecure to accept plaintext from any machine that can reach it",
		ErrInsecureAddress, Quote(e.Address))
}

// Unwrap makes errors.Is(err, ErrInsecureAddress) true.
func (e *InsecureAddressError) Unwrap() error { return ErrInsecureAddress }

// Exposed tells whether other machines can reach a literal listening address. It returns false for a host name:
// BoundBeyondLoopback judges the address that the name resolved to.
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

// BoundBeyondLoopback is Exposed for the address of a socket that exists.
func BoundBeyondLoopback(addr net.Addr) bool {
	if tcp, ok := addr.(*net.TCPAddr); ok {
		return !tcp.IP.IsLoopback()
	}
	if !strings.HasPrefix(addr.Network(), "tcp") {
		return false
	}
	at, err := netip.ParseAddrPort(addr.String()) // of a listener that the user has wrapped
	return err != nil || !at.Addr().Unmap().IsLoopback()
}

// HostOf is the part of a peer's address that is counted as one host. Of an IPv6 address it is the /64, as each host
// has a whole one. It is empty if addr is nil.
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
		p, _ := ip.Prefix(64) // which any IPv6 address has
		return p.String()
	}
	return ip.String()
}
