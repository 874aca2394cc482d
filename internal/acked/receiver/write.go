package receiver

import (
	"crypto/tls"
	"io"
	"time"

	"github.com/buffstreams/watermill-buffstreams/internal/netio"
	"github.com/buffstreams/watermill-buffstreams/internal/wire"
)

// send queues a control frame.
func (c *conn) send(f *wire.Frame) {
	c.mu.Lock()
	c.appendControlLocked(f)
	c.mu.Unlock()
	c.flusher.Kick()
}

// appendControlLocked encodes a control frame. One that cannot be encoded ends the connection.
func (c *conn) appendControlLocked(f *wire.Frame) {
	out, err := c.enc.AppendControl(c.pendingControl, f)
	if err != nil {
		_ = c.nc.Close()
		return
	}
	c.pendingControl = out
}

// appendOpened queues the answer to an Open, and the rejections that its sender has not confirmed.
func (c *conn) appendOpened(opened *wire.Opened, rejects []*wire.Reject) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.appendControlLocked(&wire.Frame{Body: &wire.Frame_Opened{Opened: opened}})
	for _, f := range rejects {
		c.appendControlLocked(&wire.Frame{Body: &wire.Frame_Reject{Reject: f}})
	}
}

// markDirty notes that a stream has acks to write.
func (c *conn) markDirty(s *stream) {
	c.mu.Lock()
	c.dirty = append(c.dirty, s)
	c.mu.Unlock()
}

// flush writes what is due. The flusher calls it.
func (c *conn) flush() {
	out := c.output()
	if len(out) == 0 {
		return
	}
	if err := netio.Write(c.nc, out, c.receiver.cfg.WriteTimeout); err != nil {
		_ = c.nc.Close() // a frame may be half written; the reader ends the rest
	}
	if c.out = out; cap(out) > 4<<10 {
		c.out = nil // an idle connection keeps no large buffer
	}
}

// output takes the control frames and acks that are due.
func (c *conn) output() []byte {
	out, dirty := c.takePending()
	for _, s := range dirty {
		out = s.appendAcks(c, out)
	}
	return out
}

func (c *conn) takePending() (control []byte, dirty []*stream) {
	c.mu.Lock()
	defer c.mu.Unlock()
	control, dirty = append(c.out[:0], c.pendingControl...), c.dirty
	c.pendingControl, c.dirty = c.pendingControl[:0], nil
	select {
	case c.written <- struct{}{}: // for awaitWritten
	default:
	}
	if c.failureSent {
		dirty = nil
	}
	return control, dirty
}

// appendAcks appends the acks that the sender has not got yet, if the stream is still attached to c.
func (s *stream) appendAcks(c *conn, dst []byte) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn != c {
		return dst
	}
	s.dirty = false
	for {
		ack, ok := s.in.Ack()
		if !ok {
			return dst
		}
		if out, err := c.enc.AppendAck(dst, ack); err == nil { // its size is bounded
			dst = out
		}
	}
}

// goawayPing is the id of the ping that follows a goaway.
const goawayPing = 1

// goaway asks the peer to send nothing more, and to answer a ping. A peer that was not welcomed yet will not be.
func (c *conn) goaway() {
	if !c.appendGoaway() {
		_ = c.nc.Close()
		return
	}
	c.flusher.Kick()
}

func (c *conn) appendGoaway() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.welcomed {
		return false
	}
	c.goawaySent = true
	c.appendControlLocked(&wire.Frame{Body: &wire.Frame_Goaway{Goaway: &wire.Goaway{Reason: "the listener closes"}}})
	c.appendControlLocked(&wire.Frame{Body: &wire.Frame_Ping{Ping: &wire.Ping{Id: goawayPing}}})
	return true
}

// sendFailure tells the peer why the connection ends, and lets it read that.
func (c *conn) sendFailure(code wire.Code, reason string) {
	c.mu.Lock()
	c.appendControlLocked(&wire.Frame{Body: &wire.Frame_Failure{Failure: &wire.Failure{
		Code: code, Reason: truncate(reason, maxReason),
	}}})
	c.failureSent = true
	c.mu.Unlock()
	c.flusher.Kick()
	c.flusher.Close()
	c.linger()
}

const (
	lingerTime  = time.Second
	lingerBytes = 4 << 20
)

// linger lets the peer read why the connection ends: a socket that is closed while it has bytes to read resets the
// connection, and the reason is lost with that. What still arrives is dropped.
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

// markDirtyLocked puts the stream on its connection's list of those that have acks to write.
func (s *stream) markDirtyLocked() {
	if s.conn != nil && !s.dirty {
		s.dirty = true
		s.conn.markDirty(s)
	}
}

// kickLocked has the acks of the stream written.
func (s *stream) kickLocked() {
	if s.conn != nil {
		s.markDirtyLocked()
		s.conn.flusher.Kick()
	}
}
