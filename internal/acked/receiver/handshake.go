package receiver

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/buffstreams/watermill-buffstreams/framing"
	"github.com/buffstreams/watermill-buffstreams/internal/netio"
	"github.com/buffstreams/watermill-buffstreams/internal/session"
	"github.com/buffstreams/watermill-buffstreams/internal/wire"
)

// handshake makes the TLS handshake and answers the peer's Hello. It returns a reader of the frames that follow.
func (c *conn) handshake() (*framing.Reader, error) {
	deadline := time.Now().Add(c.receiver.cfg.HandshakeTimeout) // of all of it: a slow peer gains nothing
	if err := c.nc.SetDeadline(deadline); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithDeadline(c.receiver.ctx, deadline)
	defer cancel()
	if err := c.secure(ctx); err != nil {
		return nil, err
	}
	small, err := session.GreetingCodec()
	if err != nil {
		return nil, err
	}
	r := framing.NewReader(c, small)
	if err := c.greet(ctx, r); err != nil {
		return nil, err
	}
	r.SetCodec(c.receiver.codec)
	c.metered = true
	return r, c.noteFrame(time.Now())
}

// secure makes the TLS handshake, if there is one.
func (c *conn) secure(ctx context.Context) error {
	secured, ok := c.nc.(*tls.Conn)
	if !ok {
		return nil
	}
	if err := netio.Handshake(ctx, secured); err != nil {
		c.linger()
		return fmt.Errorf("buffstreams: TLS handshake: %s", netio.Printable(err.Error()))
	}
	return nil
}

// greet takes the Hello, authenticates the peer, and welcomes it.
func (c *conn) greet(ctx context.Context, r *framing.Reader) error {
	payload, err := r.Next()
	if err != nil {
		return err
	}
	if payload, err = c.enc.Verify(payload); err != nil {
		return err
	}
	frame, err := session.Decode(payload)
	if err != nil {
		return err
	}
	hello, ok := frame.(*wire.Hello)
	switch {
	case !ok:
		return &session.ProtocolError{Rule: "the first frame must be a hello"}
	case hello.Version < session.Version:
		return session.NewPeerError(wire.Code_CODE_VERSION, "this listener speaks version 1")
	case hello.MaxFrame < session.MinFrame:
		return &session.ProtocolError{Rule: "max_frame of the hello is too small"}
	case c.refusal != nil:
		return c.refusal
	}
	principal, refused := c.receiver.guard.Admit(ctx, peerOf(c.nc, hello))
	if refused != nil {
		return refused
	}
	c.principal, c.moves = principal, slices.Contains(hello.Features, session.FeatureMove)
	c.welcome(netio.Printable(hello.Agent))
	c.noteAccepted()
	return nil
}

// peerOf describes the other end of a connection after the TLS handshake.
func peerOf(nc net.Conn, hello *wire.Hello) Peer {
	p := Peer{Address: nc.RemoteAddr(), Token: string(hello.GetToken()), Agent: hello.GetAgent()}
	if secured, ok := nc.(*tls.Conn); ok {
		state := secured.ConnectionState()
		p.TLS = &state
	}
	return p
}

func (c *conn) welcome(agent string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.welcomed, c.welcomedAs, c.agent, c.since = true, netio.Printable(c.principal), agent, time.Now()
	welcome := &wire.Welcome{
		Version:    session.Version,
		MaxFrame:   uint64(session.MaxFrame(c.receiver.cfg.MaxMessageSize)),
		MaxMessage: uint64(c.receiver.cfg.MaxMessageSize),
	}
	if c.moves {
		welcome.Features, welcome.Instance = []string{session.FeatureMove}, c.receiver.instance[:]
	}
	c.appendControlLocked(&wire.Frame{Body: &wire.Frame_Welcome{Welcome: welcome}})
	c.flusher.Kick()
}
