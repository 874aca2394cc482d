package netio

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"
)

// staleTimeout bounds how long a process that holds a Unix socket may take to accept.
const staleTimeout = time.Second

// Listen opens a listening socket. A Unix socket that a process left behind when it was killed is replaced: one at
// which nothing listens. Two processes that replace the same one at the same time can both succeed; the later one has
// it.
func Listen(network, address string) (net.Listener, error) {
	listen := func() (net.Listener, error) {
		return (&net.ListenConfig{}).Listen(context.Background(), network, address)
	}
	ln, err := listen()
	if err == nil || !strings.HasPrefix(network, "unix") || !errors.Is(err, syscall.EADDRINUSE) || !isStale(network, address) {
		return owned(ln), err
	}
	if removeErr := os.Remove(address); removeErr != nil {
		return nil, errors.Join(err, removeErr)
	}
	ln, err = listen()
	return owned(ln), err
}

// unixListener removes its socket when it is closed, and not the one that another process has put in its place.
type unixListener struct {
	*net.UnixListener
	made    os.FileInfo
	removed sync.Once
}

// owned returns a listener that removes no socket but its own.
func owned(ln net.Listener) net.Listener {
	l, ok := ln.(*net.UnixListener)
	if !ok {
		return ln
	}
	made, err := os.Lstat(l.Addr().String())
	if err != nil { // its address is no path
		return ln
	}
	l.SetUnlinkOnClose(false)
	return &unixListener{UnixListener: l, made: made}
}

// Close removes the socket first: it would be taken for stale in between.
func (l *unixListener) Close() error {
	l.removed.Do(func() {
		path := l.Addr().String()
		if now, err := os.Lstat(path); err == nil && os.SameFile(now, l.made) { // the inode is in use until the socket is closed
			_ = os.Remove(path)
		}
	})
	return l.UnixListener.Close()
}

// InUse tells whether Listen failed because the address is in use.
func InUse(err error) bool { return errors.Is(err, syscall.EADDRINUSE) }

// isStale tells whether a path is a socket at which nothing listens.
func isStale(network, path string) bool {
	info, err := os.Lstat(path)
	if err != nil || info.Mode()&fs.ModeSocket == 0 {
		return false
	}
	conn, err := net.DialTimeout(network, path, staleTimeout)
	if err == nil {
		_ = conn.Close()
		return false
	}
	return errors.Is(err, syscall.ECONNREFUSED)
}
