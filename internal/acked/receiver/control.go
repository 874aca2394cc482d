package receiver

import (
	"fmt"
	"maps"
	"net"
	"time"

	"github.com/buffstreams/watermill-buffstreams/internal/buffers"
	"github.com/buffstreams/watermill-buffstreams/internal/session"
	"github.com/buffstreams/watermill-buffstreams/internal/wire"
)

// control handles a frame without messages.
func (c *conn) control(payload []byte) error {
	frame, err := session.Decode(payload)
	if err != nil {
		return err
	}
	if err := c.handle(frame); err != nil {
		return err
	}
	return c.awaitWritten()
}

func (c *conn) handle(frame any) error {
	switch f := frame.(type) {
	case *wire.Open:
		return c.open(f)
	case *wire.Want:
		s, err := c.streamOf(f.Handle)
		if err != nil {
			return err
		}
		s.want(c, f.SeenMessages, f.Messages, f.Bytes, f.LeastBytes)
	case *wire.RejectSeen:
		s, err := c.streamOf(f.Handle)
		if err != nil {
			return err
		}
		s.rejectSeen(f.Sequence)
	case *wire.Release:
		c.release(f.Handle)
	case *wire.Revoke:
		if !c.moves {
			return &session.ProtocolError{Rule: "revoke without the feature"}
		}
		return c.revoke(f)
	case *wire.Ping:
		if !c.pings.spend(time.Now()) {
			return &session.ProtocolError{Rule: "too many pings"}
		}
		pong := &wire.Pong{Id: f.Id}
		if s := c.handles[f.Handle]; s != nil {
			pong.Handle, pong.Why = f.Handle, s.why()
		}
		c.send(&wire.Frame{Body: &wire.Frame_Pong{Pong: pong}})
	case *wire.Pong:
		c.pong(f.Id)
	case *wire.Failure:
		return fmt.Errorf("the peer gave up: %w", &peerFailure{f.Code, f.Reason})
	default:
		return &session.ProtocolError{Rule: fmt.Sprintf("unexpected %T", frame)}
	}
	return nil
}

func (c *conn) streamOf(handle uint64) (*stream, error) {
	s := c.handles[handle]
	if s == nil {
		return nil, &session.ProtocolError{Rule: fmt.Sprintf("no stream is open with handle %d", handle)}
	}
	return s, nil
}

// find returns the stream that an Open names, and the one that it voids, or why it is refused.
func (c *conn) find(f *wire.Open) (s, voided *stream, refused *session.PeerError) {
	if len(c.handles) >= c.receiver.cfg.MaxTopics {
		return nil, nil, session.NewPeerError(wire.Code_CODE_LIMIT, "too many streams on this connection")
	}
	refused = c.receiver.guard.Allow(c.receiver.ctx, Access{
		Principal: c.principal, Topic: f.Topic, Address: c.nc.RemoteAddr(),
	})
	if refused != nil {
		return nil, nil, refused
	}
	defer c.receiver.tellForgotten()
	defer c.receiver.tellUnheard()
	return c.receiver.open(f, c.principal)
}

// open attaches the stream that an Open names, or answers why not.
func (c *conn) open(f *wire.Open) error {
	if c.handles[f.Handle] != nil {
		return &session.ProtocolError{Rule: fmt.Sprintf("handle %d is open already", f.Handle)}
	}
	if f.Handle == 0 {
		return &session.ProtocolError{Rule: "a handle must not be 0"}
	}
	s, voided, refused := c.find(f)
	if refused != nil {
		answer := &wire.Opened{Handle: f.Handle, Code: session.CodeOf(refused), Reason: refused.Reason}
		if answer.Code == wire.Code_CODE_FENCED {
			c.receiver.addFence(answer, f, c.principal)
		}
		c.send(&wire.Frame{Body: &wire.Frame_Opened{Opened: answer}})
		return nil
	}
	if voided != nil {
		voided.endVoided(c)
	}
	if s.attachedTo(c) { // the sender has opened it anew, with another handle
		maps.DeleteFunc(c.handles, func(_ uint64, other *stream) bool { return other == s })
	}
	c.handles[f.Handle] = s
	c.attached.Store(int64(len(c.handles)))
	s.attach(c, f)
	return nil
}

// release forgets a stream that its sender has ended, or whose end its sender has learnt.
func (c *conn) release(handle uint64) {
	s := c.handles[handle]
	switch {
	case s == nil:
	case s.isEnded():
		s.takeUnheard() // the sender answers for what it has not heard of
		c.deleteHandle(handle)
		c.receiver.removeUnused(s)
		c.receiver.forgetPublisher(s)
	case s.release(c):
		c.deleteHandle(handle)
		s.detach(c)
		c.receiver.forget(s)
	}
}

func (c *conn) deleteHandle(handle uint64) {
	delete(c.handles, handle)
	c.handles = buffers.Shrink(c.handles, &c.mostHandles)
	c.attached.Store(int64(len(c.handles)))
}

func (c *conn) pong(id uint64) {
	c.mu.Lock()
	if c.farewellSent && id == farewellPing {
		c.farewellSent = false
		close(c.farewell)
	}
	answered := false
	if c.goawaySent && id == goawayPing {
		answered = !c.goawayAnswered
		c.goawayAnswered = true
	}
	c.mu.Unlock()
	if !answered {
		return
	}
	for _, s := range c.handles {
		s.updateKept()
	}
	close(c.answered)
}

// keepsUnsettled tells whether the peer keeps what is not settled: it is connected, and has answered if the Receiver
// goes away.
func (c *conn) keepsUnsettled() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.goawaySent || c.goawayAnswered
}

// peerFailure is why the peer ends the connection. It is not answered.
type peerFailure struct {
	code   wire.Code
	reason string
}

func (e *peerFailure) Error() string { return fmt.Sprintf("%s: %.200q", e.code, e.reason) }

const (
	// maxPings is how many pings a peer may send within pingSpan. They cost an answer, and do nothing for it.
	maxPings = 1000
	pingSpan = time.Second
	// maxPendingControl is how many bytes of answers may wait for the socket before no further frame is read.
	maxPendingControl = 256 << 10
)

// pingBudget counts the pings of a peer.
type pingBudget struct {
	since time.Time
	count int
}

// spend counts one. It returns false if that is one too many.
func (b *pingBudget) spend(now time.Time) bool {
	if now.Sub(b.since) >= pingSpan {
		b.since, b.count = now, 0
	}
	b.count++
	return b.count <= maxPings
}

// awaitWritten waits until the answers that the peer has caused were taken to be written. So a peer that does not read
// them is held back by its own socket, until the write fails and the connection ends.
func (c *conn) awaitWritten() error {
	for {
		c.mu.Lock()
		waiting := len(c.pendingControl)
		c.mu.Unlock()
		if waiting <= maxPendingControl {
			return nil
		}
		select {
		case <-c.written:
		case <-c.receiver.ctx.Done():
			return net.ErrClosed
		}
	}
}
