package receiver

import (
	"net"

	"github.com/ThreeDotsLabs/watermill"

	"github.com/buffstreams/watermill-buffstreams/internal/netio"
	"github.com/buffstreams/watermill-buffstreams/internal/session"
	"github.com/buffstreams/watermill-buffstreams/internal/wire"
)

// maxRefused bounds the connections over the limits that get an answer at a time. More are closed without one, which
// costs nothing.
const maxRefused = 64

// connCounts are the numbers of a Receiver's connections. Receiver.mu guards it.
type connCounts struct {
	admitted int
	perHost  map[string]int // of the admitted
	refused  int            // over the limits, and still connected to get the answer
	full     bool           // the last connection was over the limits: a flood must not fill the log
}

// admit starts a connection. One over the limits gets an answer that says so, if not too many others do.
func (r *Receiver) admit(nc net.Conn) {
	c := newConn(r, nc)
	started, logged := r.startConn(c)
	if !started {
		_ = nc.Close()
	}
	if logged != "" {
		r.cfg.Logger.Info("Connections are refused", watermill.LogFields{
			"provider": netio.Provider, "address": r.cfg.Address, "peer": netio.PeerText(nc.RemoteAddr()), "reason": logged,
		})
	}
}

// startConn counts a connection and starts its goroutine, if it is to be served or to get an answer. logged is the
// reason of a refusal that is the first in a row.
func (r *Receiver) startConn(c *conn) (started bool, logged string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.draining {
		return false, ""
	}
	reason := r.counts.add(c.host, &r.cfg)
	if reason != "" && !r.counts.full {
		logged = reason
	}
	if r.counts.full = reason != ""; r.counts.full {
		if r.counts.refused >= maxRefused {
			return false, logged
		}
		r.counts.refused++
		c.refusal = session.NewPeerError(wire.Code_CODE_LIMIT, reason)
	}
	r.conns[c] = struct{}{}
	r.wg.Go(c.serve) // ends when the peer or Close closes the connection; Close waits for it
	return true, logged
}

// add counts a connection as admitted, or returns why it is refused.
func (n *connCounts) add(host string, cfg *Config) (refusal string) {
	switch perHost := cfg.MaxConnectionsPerHost; {
	case n.admitted >= cfg.MaxConnections:
		return "too many connections"
	case perHost >= 0 && n.perHost[host] >= perHost:
		return "too many connections from this address"
	}
	n.admitted++
	n.perHost[host]++
	return ""
}

// removeConn forgets a connection that ended.
func (r *Receiver) removeConn(c *conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.conns, c)
	if c.refusal != nil {
		r.counts.refused--
		return
	}
	r.counts.admitted--
	if r.counts.perHost[c.host]--; r.counts.perHost[c.host] == 0 {
		delete(r.counts.perHost, c.host)
	}
}
