//go:build !unix

package netio

import (
	"io"
	"net"
)

// patient returns conn.
func ReadWhenReady(conn net.Conn) io.Reader { return conn }
