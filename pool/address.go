package pool

import (
	"net"
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
