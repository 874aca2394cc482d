//go:build unix

package netio

import (
	"errors"
	"net"
	"syscall"
)

// TryWriter writes to a bare socket without blocking. It is not safe for concurrent use.
type TryWriter struct {
	raw      syscall.RawConn
	tryWrite func(fd uintptr) bool // made once, as it escapes

	// The argument and results of tryWrite.
	buf []byte
	n   int
	err error
}

// NewTryWriter returns nil if conn is not a bare socket.
func NewTryWriter(conn net.Conn) *TryWriter {
	raw := rawConn(conn)
	if raw == nil {
		return nil
	}
	w := &TryWriter{raw: raw}
	w.tryWrite = func(fd uintptr) bool {
		w.n, w.err = syscall.Write(int(fd), w.buf)
		return true
	}
	return w
}

// Write writes as much of buf as the socket takes at once, and returns how much that was. Less than all of it is no
// error.
func (w *TryWriter) Write(buf []byte) (int, error) {
	w.buf, w.n, w.err = buf, 0, nil
	err := w.raw.Write(w.tryWrite)
	w.buf = nil
	if err == nil {
		err = w.err
	}
	if errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EINTR) {
		return 0, nil
	}
	return max(w.n, 0), err
}

// rawConn returns nil if conn is not a bare socket, as under TLS, or if the user's dial has wrapped a socket in a type
// with methods of its own.
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
