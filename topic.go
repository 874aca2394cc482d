package buffstreams

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/buffstreams/watermill-buffstreams/internal/netio"
)

// destination is a topic that names its address: where to dial or listen, and the name that travels on the wire.
type destination struct {
	target netio.Target
	name   string
}

// parseTopic reads an address topic: [tcp|tls://]host:port[/name] or unix:///path.sock#name. ok is false for a plain
// name: a topic without a port, and, where plain names are expected, also one whose host is neither empty nor an IP
// address, such as "tenant:42", or whose scheme is none of these, such as "events://orders".
func parseTopic(topic string, expectNames bool) (d destination, ok bool, err error) {
	scheme, rest, explicit := strings.Cut(topic, "://")
	if !explicit {
		scheme, rest = "tcp", topic
	}
	switch scheme {
	case "tcp", "tls":
		hostPort, name, _ := strings.Cut(rest, "/")
		if !isHostPort(hostPort) {
			if explicit {
				return d, false, fmt.Errorf("%w: %.200q has no host:port", ErrBadTopic, topic)
			}
			return d, false, nil
		}
		if expectNames && !explicit && !isIP(hostPort) {
			return d, false, nil
		}
		return destination{netio.Target{Network: "tcp", Address: hostPort, TLS: scheme == "tls"}, name}, true, nil
	case "unix":
		path, name, _ := strings.Cut(rest, "#")
		if !strings.HasPrefix(path, "/") {
			return d, false, fmt.Errorf("%w: the path of %.200q is not absolute", ErrBadTopic, topic)
		}
		if len(path) > maxSocketPath {
			return d, false, fmt.Errorf("%w: the path of %.200q has %d bytes; that of a Unix socket can have %d", ErrBadTopic, topic, len(path), maxSocketPath)
		}
		return destination{netio.Target{Network: "unix", Address: path}, name}, true, nil
	}
	if expectNames {
		return d, false, nil
	}
	return d, false, fmt.Errorf("%w: unknown scheme in %.200q; use tcp://, tls:// or unix://", ErrBadTopic, topic)
}

// maxSocketPath is the longest path of a Unix socket in bytes, on Linux; elsewhere it is somewhat less.
const maxSocketPath = 107

// isHostPort tells an address from a name: an address has a numeric port.
func isHostPort(s string) bool {
	_, port, err := net.SplitHostPort(s)
	if err != nil {
		return false
	}
	_, err = strconv.ParseUint(port, 10, 16)
	return err == nil
}

// isIP tells whether the host of a host:port is an IP address, or empty, which stands for all of this machine's.
func isIP(hostPort string) bool {
	host, _, _ := net.SplitHostPort(hostPort)
	if host == "" {
		return true
	}
	_, err := netip.ParseAddr(host)
	return err == nil
}

// parseAddress reads an address without a name, as a Route or ListenAddress has it.
func parseAddress(address string) (netio.Target, error) {
	d, ok, err := parseTopic(address, false)
	if err != nil {
		return netio.Target{}, err
	}
	if !ok || d.name != "" {
		return netio.Target{}, fmt.Errorf("%w: %.200q is not an address; use host:port, tls://host:port or unix:///path", ErrBadTopic, address)
	}
	return d.target, nil
}

// maxName is the longest topic name that a peer takes, in bytes.
const maxName = 1024

// checkName refuses what cannot travel as a topic name.
func checkName(name string) error {
	if len(name) > maxName || !utf8.ValidString(name) {
		return fmt.Errorf("%w: the name %.100q must be valid UTF-8 of at most %d bytes", ErrBadTopic, name, maxName)
	}
	return nil
}

// formatAddress is the reverse of parseAddress.
func formatAddress(t netio.Target) string {
	switch {
	case t.Network == "unix":
		return "unix://" + t.Address
	case t.TLS:
		return "tls://" + t.Address
	}
	return t.Address
}
