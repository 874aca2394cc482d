package pool

import (
	"net"
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
	tcp, ok := addr.(*net.TCPAddr)
	return ok && !tcp.IP.IsLoopback()
}

// hostOf is the part of a peer's address that its connections share.
func hostOf(addr net.Addr) string {
	if tcp, ok := addr.(*net.TCPAddr); ok {
		return tcp.IP.String()
	}
	return addr.Network()
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
