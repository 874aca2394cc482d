package receiver

import (
	"context"
	"time"

	"github.com/buffstreams/watermill-buffstreams/internal/dispatch"
	"github.com/buffstreams/watermill-buffstreams/internal/wire"
)

// SyncAcks returns when the acks that are due to the publishers of a topic were written, as far as they are connected,
// or ctx is done.
func (r *Receiver) SyncAcks(ctx context.Context, t *dispatch.Topic) {
	conns := r.connectionsOf(t)
	for c := range conns {
		c.flusher.Kick() // one that blocks holds up no other
	}
	for c := range conns {
		c.flusher.Sync(ctx)
	}
}

// connectionsOf returns the connections that have streams of a topic.
func (r *Receiver) connectionsOf(t *dispatch.Topic) map[*conn]struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	conns := map[*conn]struct{}{}
	for s := range r.streams[t] {
		if c := s.connection(); c != nil {
			conns[c] = struct{}{}
		}
	}
	return conns
}

// connection returns the connection that has the stream, or nil.
func (s *stream) connection() *conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.conn
}

const (
	// farewellPing is the id of the ping that follows the last acks.
	farewellPing = 2
	// farewellTime is how long the peer has to answer it.
	farewellTime = time.Second
)

// flushAndClose closes the connection when the acks that are due were written and the peer has read them, or ctx is
// done. A socket that is closed while it has bytes to read resets the connection, and acks that are on their way are
// lost with that: so it is closed for writing first, and the peer answers a last ping, or closes its side.
func (c *conn) flushAndClose(ctx context.Context) {
	defer context.AfterFunc(ctx, c.closeNow)()
	c.flusher.Sync(ctx)
	c.appendFarewell()
	c.flusher.Kick()
	c.flusher.Close()
	if half, ok := c.nc.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite() // if that fails the connection is about to end
	}
	select {
	case <-c.farewell:
	case <-c.ended:
	case <-time.After(farewellTime):
	}
	_ = c.nc.Close()
}

func (c *conn) appendFarewell() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.welcomed && !c.failureSent {
		c.farewellSent = true
		c.appendControlLocked(&wire.Frame{Body: &wire.Frame_Ping{Ping: &wire.Ping{Id: farewellPing}}})
	}
}
