package receiver

import (
	"time"

	"github.com/buffstreams/watermill-buffstreams/internal/wire"
)

// send queues a control frame.
func (c *conn) send(f *wire.Frame) {
	c.mu.Lock()
	c.append(f)
	c.mu.Unlock()
	c.flusher.Kick()
}

// append encodes a control frame. One that cannot be encoded ends the connection. c.mu is held.
func (c *conn) append(f *wire.Frame) {
	out, err := c.enc.AppendControl(c.control, f)
	if err != nil {
		_ = c.nc.Close()
		return
	}
	c.control = out
}

// mark notes that a stream has something to tell.
func (c *conn) mark(s *stream) {
	c.mu.Lock()
	c.dirty = append(c.dirty, s)
	c.mu.Unlock()
}

// flush writes what is due. It is the flusher's.
func (c *conn) flush() {
	out := c.due()
	if len(out) == 0 {
		return
	}
	err := c.nc.SetWriteDeadline(time.Now().Add(c.receiver.cfg.WriteTimeout))
	if err == nil {
		_, err = c.nc.Write(out)
	}
	if err != nil {
		_ = c.nc.Close() // a half-written frame ends the connection; the reader ends with it
	}
	if c.out = out; cap(out) > 4<<10 {
		c.out = nil // an idle connection keeps no large buffer
	}
}

// due takes what is to be written. It is the flusher's.
func (c *conn) due() []byte {
	c.mu.Lock()
	out := append(c.out[:0], c.control...)
	dirty := c.dirty
	c.control, c.dirty = c.control[:0], nil
	select {
	case c.written <- struct{}{}: // for holdBack
	default:
	}
	if c.failing {
		dirty = nil
	}
	c.mu.Unlock()
	for _, s := range dirty {
		out = s.appendAcks(c, out)
	}
	return out
}
