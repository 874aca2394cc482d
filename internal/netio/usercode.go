package netio

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/buffstreams/watermill-buffstreams/internal/hook"
)

var errNoConn = errors.New("buffstreams: Dial returned neither a connection nor an error")

// GuardedDial is a Dial of the user's, such that a panic or a nil connection is an error, and that it returns when its
// context is done. A connection that comes later is closed.
func GuardedDial(d Dial) Dial {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := hook.CallWithin(ctx, "Dial", func() (net.Conn, error) { return d(ctx, network, address) }, closeConn)
		if err == nil && conn == nil {
			err = errNoConn
		}
		return conn, err
	}
}

func closeConn(c net.Conn) {
	if c != nil {
		_ = c.Close() // no caller waits for it
	}
}

// GuardedListen calls a Listen of the user's: a panic or a nil listener is an error.
func GuardedListen(listen func(network, address string) (net.Listener, error), network, address string) (ln net.Listener, err error) {
	err = hook.Call("Listen", func() (err error) {
		ln, err = listen(network, address)
		return err
	})
	if err == nil && ln == nil {
		err = fmt.Errorf("buffstreams: Listen at %s returned neither a listener nor an error", Quote(address))
	}
	return ln, err
}

// Handshake makes a TLS handshake. The callbacks of its configuration are the user's: one that panics, or does not
// return before ctx is done, fails the handshake.
func Handshake(ctx context.Context, conn *tls.Conn) error {
	_, err := hook.CallWithin(ctx, "a callback of the TLS configuration", func() (struct{}, error) {
		return struct{}{}, conn.HandshakeContext(ctx)
	}, nil)
	return err
}

// GuardedBackOff returns what a BackOff function of the user's makes, such that a panic, or nil, means the longest
// wait.
func GuardedBackOff(create func() backoff.BackOff, longest time.Duration) backoff.BackOff {
	g := &guardedBackOff{longest: longest}
	_ = hook.Call("BackOff", func() error { // without one every wait is the longest
		g.user = create()
		return nil
	})
	return g
}

type guardedBackOff struct {
	user    backoff.BackOff
	longest time.Duration
}

// NextBackOff may return backoff.Stop.
func (g *guardedBackOff) NextBackOff() time.Duration {
	delay := g.longest
	_ = hook.Call("BackOff", func() error {
		if g.user != nil {
			delay = g.user.NextBackOff()
		}
		return nil
	})
	return delay
}

func (g *guardedBackOff) Reset() {
	_ = hook.Call("BackOff", func() error {
		if g.user != nil {
			g.user.Reset()
		}
		return nil
	})
}
