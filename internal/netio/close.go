package netio

import (
	"crypto/tls"
	"net"
)

// breakOff closes conn without the farewell of TLS, which can block on a peer
// that does not read.
func CloseNow(conn net.Conn) {
	if secured, ok := conn.(*tls.Conn); ok {
		conn = secured.NetConn()
	}
	_ = conn.Close() // it is given up either way
}
