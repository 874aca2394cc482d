package receiver

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/ThreeDotsLabs/watermill"

	"github.com/buffstreams/watermill-buffstreams/internal/netio"
	"github.com/buffstreams/watermill-buffstreams/internal/session"
	"github.com/buffstreams/watermill-buffstreams/internal/wire"
)

// maxTurnedAway is how many connections at a time, beyond those that an endpoint takes, are told why they are not taken. More
// are closed without a word, which costs nothing.
const maxTurnedAway = 64

// crowd counts an endpoint's connections. The endpoint's mu guards it.
type connections struct {
	admitted   int
	perHost    map[string]int // of the admitted
	turnedAway int            // those that are being told
	full       bool           // the last connection was one too many: a flood must not fill the log
}

// admit starts a connection. One too many is told so, if not too many are being told.
func (e *Receiver) admit(nc net.Conn) {
	c := newConn(e, nc)
	e.mu.Lock()
	if e.closing {
		e.mu.Unlock()
		_ = nc.Close()
		return
	}
	reason := e.counts.enter(c.host, &e.cfg)
	first := reason != "" && !e.counts.full
	e.counts.full = reason != ""
	told := reason == "" || e.counts.turnedAway < maxTurnedAway
	if reason != "" && told {
		e.counts.turnedAway++
		c.refusal = session.NewPeerError(wire.Code_CODE_LIMIT, reason)
	}
	if told {
		e.conns[c] = struct{}{}
		e.wg.Go(c.serve) // ends when the peer or Close closes the connection
	}
	e.mu.Unlock()
	if !told {
		_ = nc.Close()
	}
	if first {
		e.cfg.Logger.Info("Connections are refused", watermill.LogFields{
			"provider": netio.Provider, "address": e.cfg.Address, "peer": netio.PeerText(nc.RemoteAddr()), "reason": reason,
		})
	}
}

// enter counts a connection in, or says why it cannot be.
func (w *connections) enter(host string, cfg *Config) (refusal string) {
	switch most := cfg.MaxConnectionsPerHost; {
	case w.admitted >= cfg.MaxConnections:
		return "too many connections"
	case most >= 0 && w.perHost[host] >= most:
		return "too many connections from this address"
	}
	w.admitted++
	w.perHost[host]++
	return ""
}

// forget takes a connection off the list.
func (e *Receiver) forget(c *conn) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.conns, c)
	if c.refusal != nil {
		e.counts.turnedAway--
		return
	}
	e.counts.admitted--
	if e.counts.perHost[c.host]--; e.counts.perHost[c.host] == 0 {
		delete(e.counts.perHost, c.host)
	}
}

// secure makes the TLS handshake. ctx bounds it.
func (c *conn) secure(ctx context.Context) error {
	secured, ok := c.nc.(*tls.Conn)
	if !ok {
		return nil
	}
	if err := secured.HandshakeContext(ctx); err != nil {
		c.linger()
		return fmt.Errorf("buffstreams: TLS handshake: %s", netio.Printable(err.Error()))
	}
	return nil
}

// welcome decides whether a peer that has said hello is let in.
func (c *conn) welcome(ctx context.Context, hello *wire.Hello) error {
	if c.refusal != nil {
		return c.refusal
	}
	principal, refused := c.receiver.guard.Admit(ctx, peerOf(c.nc, hello))
	if refused != nil {
		return refused
	}
	c.principal = principal
	return nil
}

// peerOf describes the other end of a connection whose handshake was made.
func peerOf(nc net.Conn, hello *wire.Hello) Peer {
	p := Peer{Address: nc.RemoteAddr(), Token: string(hello.GetToken()), Agent: hello.GetAgent()}
	if secured, ok := nc.(*tls.Conn); ok {
		state := secured.ConnectionState()
		p.TLS = &state
	}
	return p
}

// may asks whether the peer may publish to a topic. The reader waits for the answer.
func (c *conn) may(topic string) *session.PeerError {
	return c.receiver.guard.Allow(c.receiver.ctx, Access{
		Principal: c.principal, Topic: topic, Address: c.nc.RemoteAddr(),
	})
}

const (
	// maxPings is how many pings a peer may send within pingSpan. They cost an answer, and do nothing for it.
	maxPings = 1000
	pingSpan = time.Second
	// maxUnwritten is how many bytes of answers may wait for the socket before no further frame is read.
	maxUnwritten = 256 << 10
)

// pingBudget counts the frames of a peer that only keep this side busy.
type pingBudget struct {
	since time.Time
	count int
}

// spend counts one. It returns false when it is one too many.
func (b *pingBudget) spend(now time.Time) bool {
	if now.Sub(b.since) >= pingSpan {
		b.since, b.count = now, 0
	}
	b.count++
	return b.count <= maxPings
}

// holdBack waits until the answers that the peer has caused went out. A peer that does not read them is so held back by its
// own socket, until the write fails and the connection ends.
func (c *conn) holdBack() error {
	for {
		c.mu.Lock()
		waiting := len(c.control)
		c.mu.Unlock()
		if waiting <= maxUnwritten {
			return nil
		}
		select {
		case <-c.written:
		case <-c.receiver.abandoned:
			return net.ErrClosed
		}
	}
}

const (
	lingerTime  = time.Second
	lingerBytes = 4 << 20
)

// linger lets the peer read why the connection ends: a socket that is closed while bytes wait in it resets the connection,
// and the reason is lost with that. What still comes is dropped.
func (c *conn) linger() {
	raw := c.nc
	if secured, ok := raw.(*tls.Conn); ok {
		raw = secured.NetConn()
	}
	half, ok := raw.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil || raw.SetReadDeadline(time.Now().Add(lingerTime)) != nil {
		return
	}
	_, _ = io.CopyN(io.Discard, raw, lingerBytes) // ends with the peer, the deadline, or Close
}

// cut closes the connection at once. TLS would say farewell first, and wait seconds for a peer that does not read: that must
// not happen under a lock.
func (c *conn) closeNow() { netio.CloseNow(c.nc) }
