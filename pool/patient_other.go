//go:build !unix

package pool

import (
	"io"
	"net"
)

// patient returns conn.
func patient(conn net.Conn) io.Reader { return conn }
