//go:build !unix

package netio

import (
	"io"
	"net"
)

// ReadWhenReady returns conn: no buffer can be spared here.
func ReadWhenReady(conn net.Conn) io.Reader { return conn }
