package pool

import (
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/buffstreams/watermill-buffstreams/internal/netio"
)

// Close stops accepting and closes the socket, so that its port is free at
// once. Messages that were received whole, also those that the kernel still
// holds, are handed over; then the connections are closed. After CloseTimeout
// they are cut, and ErrCloseTimeout tells what was left. Later and concurrent
// calls wait for the first and return the same.
func (l *Listener) Close() error {
	l.closeOnce.Do(func() { l.closeErr = l.shutDown() })
	return l.closeErr
}

func (l *Listener) shutDown() error {
	l.mu.Lock()
	l.closed = true
	close(l.closing)
	l.checkIdle()
	conns := l.snapshot()
	l.mu.Unlock()
	err := l.socket.Close()
	if errors.Is(err, net.ErrClosed) {
		err = nil // somebody was faster; it is closed
	}
	for _, in := range conns {
		in.drain()
	}
	patience := time.NewTimer(l.cfg.CloseTimeout)
	defer patience.Stop()
	select {
	case <-l.idle:
		return err
	case <-patience.C:
		return errors.Join(err, l.cut())
	}
}

// cut ends the connections that are left and returns what that lost.
func (l *Listener) cut() error {
	l.aborted.Store(true)
	close(l.abort)
	l.mu.Lock()
	conns := l.snapshot()
	l.mu.Unlock()
	for _, in := range conns {
		netio.CloseNow(in.raw)
	}
	var grace <-chan time.Time // for ever, where only our own code is waited for
	if l.cfg.Callback != nil {
		timer := time.NewTimer(abortGrace)
		defer timer.Stop()
		grace = timer.C
	}
	select {
	case <-l.idle:
	case <-grace:
	}
	l.mu.Lock()
	busy := len(l.conns)
	l.mu.Unlock()
	return fmt.Errorf("%w: %d callbacks are running, %d received messages were dropped", ErrCloseTimeout, busy, l.dropped.Load())
}

// snapshot wants mu.
func (l *Listener) snapshot() []*inbound {
	conns := make([]*inbound, 0, len(l.conns))
	for in := range l.conns {
		conns = append(conns, in)
	}
	return conns
}
