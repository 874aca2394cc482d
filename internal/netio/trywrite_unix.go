//go:build unix

package netio

import (
	"errors"
	"net"
	"syscall"
)

// tryWriter writes to a socket what that takes at once. It is not safe for concurrent use.
type TryWriter struct {
	raw  syscall.RawConn
	once func(fd uintptr) bool // made once, as it escapes

	buf []byte
	n   int
	err error
}

// newTryWriter returns nil for a connection that is not a bare socket.
func NewTryWriter(conn net.Conn) *TryWriter {
	raw := rawConn(conn)
	if raw == nil {
		return nil
	}
	w := &TryWriter{raw: raw}
	w.once = func(fd uintptr) bool {
		w.n, w.err = syscall.Write(int(fd), w.buf)
		return true
	}
	return w
}

// write returns how much of buf was written. Less than all of it is no error.
func (w *TryWriter) Write(buf []byte) (int, error) {
	w.buf, w.n, w.err = buf, 0, nil
	err := w.raw.Write(w.once)
	w.buf = nil
	if err == nil {
		err = w.err
	}
	if errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EINTR) {
		return 0, nil
	}
	return max(w.n, 0), err
}

// rawConn returns nil for a connection that is not a bare socket, such as one under TLS, or one of the user's that embeds a
// socket and has methods of its own.
func rawConn(conn net.Conn) syscall.RawConn {
	var raw syscall.RawConn
	var err error
	switch socket := conn.(type) {
	case *net.TCPConn:
		raw, err = socket.SyscallConn()
	case *net.UnixConn:
		raw, err = socket.SyscallConn()
	}
	if err != nil {
		return nil
	}
	return raw
}
