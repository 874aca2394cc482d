//go:build unix

package netio

import (
	"io"
	"net"
	"os"
	"syscall"

	"github.com/buffstreams/watermill-buffstreams/framing"
)

// readinessReader is a bare socket that holds no buffer while there is nothing to read. It implements
// framing.PatientSource, for one goroutine at a time.
type readinessReader struct {
	net.Conn
	raw     syscall.RawConn
	tryRead func(fd uintptr) bool // readFD, made once, as it escapes

	// The arguments and results of tryRead.
	memory framing.Memory
	n      int
	err    error
}

// ReadWhenReady returns what a framing.Reader reads conn from. For a bare socket that is a framing.PatientSource, which
// borrows a buffer only when there is something to read; any other connection is returned as it is.
func ReadWhenReady(conn net.Conn) io.Reader {
	raw := rawConn(conn)
	if raw == nil {
		return conn
	}
	c := &readinessReader{Conn: conn, raw: raw}
	c.tryRead = c.readFD
	return c
}

// ReadPatiently implements framing.PatientSource. It blocks as Read does.
func (c *readinessReader) ReadPatiently(m framing.Memory) (int, error) {
	c.memory, c.n, c.err = m, 0, nil
	err := c.raw.Read(c.tryRead)
	c.memory = nil
	switch {
	case err != nil:
		return 0, err
	case c.err != nil:
		return 0, &net.OpError{
			Op: "read", Net: c.LocalAddr().Network(), Source: c.LocalAddr(), Addr: c.RemoteAddr(),
			Err: os.NewSyscallError("read", c.err),
		}
	case c.n == 0:
		return 0, io.EOF
	}
	return c.n, nil
}

// readFD is called when there may be something to read. It returns false to be called again when there is.
func (c *readinessReader) readFD(fd uintptr) bool {
	for {
		c.n, c.err = syscall.Read(int(fd), c.memory.Lend())
		switch c.err {
		case syscall.EINTR:
			continue
		case syscall.EAGAIN:
			c.memory.Return()
			return false
		}
		return true
	}
}
