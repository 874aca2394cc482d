package watch

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"time"
)

// alertWait is how long a write that failed waits for what the peer has said.
const alertWait = time.Second

// dialTLS returns a dial function for https addresses whose connections say why the peer has ended them.
func dialTLS(cfg *tls.Config) func(ctx context.Context, network, address string) (net.Conn, error) {
	dialer := &tls.Dialer{Config: cfg}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dialer.DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return newToldConn(conn), nil
	}
}

// toldConn is a connection of TLS whose writes fail with the peer's alert, where there is one. In TLS 1.3 a peer
// refuses a certificate after the handshake, while the first request is written, and net/http returns the error of that
// write: a pipe that is broken, or a connection that it has closed itself.
type toldConn struct {
	net.Conn
	once  sync.Once
	ended chan struct{} // closed when a read has failed
	why   error         // of that read; set before ended is closed
}

func newToldConn(conn net.Conn) *toldConn { return &toldConn{Conn: conn, ended: make(chan struct{})} }

func (c *toldConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err != nil {
		c.once.Do(func() {
			c.why = err
			close(c.ended)
		})
	}
	return n, err
}

func (c *toldConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	if err == nil {
		return n, nil
	}
	timer := time.NewTimer(alertWait) // net/http reads all the while
	defer timer.Stop()
	select {
	case <-c.ended:
	case <-timer.C:
		return n, err
	}
	var op *net.OpError
	if errors.As(c.why, &op) && op.Op == "remote error" { // as crypto/tls calls an alert
		return n, c.why
	}
	return n, err
}
