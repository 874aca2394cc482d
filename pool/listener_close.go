package pool

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"time"

	"github.com/buffstreams/watermill-buffstreams/internal/netio"
)

// abortGrace is how long Close waits for callbacks after it has closed their connections.
const abortGrace = 100 * time.Millisecond

// Close stops accepting and closes the socket, so that its port is free at once. Messages that were received whole,
// also those that the kernel still holds, are handed over; then the connections are closed. After CloseTimeout they are
// closed at once, and an ErrCloseTimeout says what was left. Later and concurrent calls wait for the first and return
// the same.
func (l *Listener) Close() error {
	return l.ending.run(l.shutDown)
}

func (l *Listener) shutDown() error {
	l.stopRegistering()
	err := l.socket.Close()
	if errors.Is(err, net.ErrClosed) {
		err = nil // it was closed by another way before
	}
	for _, in := range l.connections() {
		in.drain()
	}
	timeout := time.NewTimer(l.cfg.CloseTimeout)
	defer timeout.Stop()
	select {
	case <-l.idle:
		return err
	case <-timeout.C:
		return errors.Join(err, l.abortConnections())
	}
}

func (l *Listener) stopRegistering() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	close(l.closing)
	l.checkIdleLocked()
}

// abortConnections closes the connections that are left and returns an error that says what that lost.
func (l *Listener) abortConnections() error {
	l.aborted.Store(true)
	close(l.abort)
	l.giveUp()
	for _, in := range l.connections() {
		netio.CloseNow(in.raw)
	}
	var grace <-chan time.Time // unbounded without a callback: only code of this package is waited for
	if l.cfg.Callback != nil {
		timer := time.NewTimer(abortGrace)
		defer timer.Stop()
		grace = timer.C
	}
	select {
	case <-l.idle:
	case <-grace:
	}
	return fmt.Errorf("%w: %d callbacks are running, %d received messages were dropped", ErrCloseTimeout,
		len(l.connections()), l.dropped.Load())
}

func (l *Listener) connections() []*inbound {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Collect(maps.Keys(l.conns))
}
