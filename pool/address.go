package pool

import (
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// FormatAddress joins a host and a port to an address for Dial or
// StartListening. An IPv6 host gets its brackets, whether it has them or not;
// an empty host means every interface when listening.
func FormatAddress(host, port string) string {
	if strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]") {
		host = host[1 : len(host)-1]
	}
	return net.JoinHostPort(host, port)
}

// reachableFromOutside tells whether a literal listening address is open to
// other machines. A host name is not judged here: the bound socket's own
// address is, after it was resolved.
func reachableFromOutside(network, address string) bool {
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
func boundOutside(addr net.Addr) bool {
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
func hostOf(addr net.Addr) string {
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

// maxLoggedAddress bounds what a log line or error repeats of an address.
const maxLoggedAddress = 128

// quoteAddress makes text that may come from outside safe for a log line.
func quoteAddress(address string) string {
	if len(address) > maxLoggedAddress {
		address = address[:maxLoggedAddress] + "…"
	}
	return strconv.Quote(address)
}

// peerText is an address as logs show it: the peer chose that of its Unix socket.
func peerText(addr net.Addr) string {
	if addr == nil {
		return ""
	}
	return printable(addr.String())
}

// maxLoggedText bounds what a log line repeats of text that may be a peer's.
const maxLoggedText = 300

// printableError is an error whose text may be a peer's, for a log line.
type printableError struct{ error }

func (e printableError) Error() string { return printable(e.error.Error()) }

func (e printableError) Unwrap() error { return e.error }

func sanitized(err error) error {
	if err == nil {
		return nil
	}
	return printableError{err}
}

// printable makes text that may be a peer's safe for a log line or an error: cut, on one line, without control characters.
func printable(text string) string {
	if len(text) > maxLoggedText {
		text = strings.ToValidUTF8(text[:maxLoggedText], "") + "…"
	}
	if strings.IndexFunc(text, func(r rune) bool { return !strconv.IsPrint(r) }) < 0 {
		return text
	}
	quoted := strconv.Quote(text)
	return strings.ReplaceAll(quoted[1:len(quoted)-1], `\"`, `"`)
}
