//go:build unix

package netio

import (
	"io"
	"net"
	"os"
	"syscall"

	"github.com/buffstreams/watermill-buffstreams/framing"
)

// patientConn is a socket that is read without a buffer while there is nothing to read: it is a framing.PatientSource.
type readinessReader struct {
	net.Conn
	raw  syscall.RawConn
	once func(fd uintptr) bool // made once, as it escapes

	memory framing.Memory // the reader's
	n      int
	err    error
}

// patient returns conn as a source to read frames from. What is not a bare socket is returned as it is.
func ReadWhenReady(conn net.Conn) io.Reader {
	raw := rawConn(conn)
	if raw == nil {
		return conn
	}
	c := &readinessReader{Conn: conn, raw: raw}
	c.once = c.read
	return c
}

// ReadPatiently implements framing.PatientSource.
func (c *readinessReader) ReadPatiently(m framing.Memory) (int, error) {
	c.memory, c.n, c.err = m, 0, nil
	err := c.raw.Read(c.once)
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

// read is called when there may be something to read. It returns false to be called again when there is.
func (c *readinessReader) read(fd uintptr) bool {
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
